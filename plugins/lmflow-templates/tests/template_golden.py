"""What each template makes of one conversation, written by hand; ``⟦…⟧`` encloses what is trained on.

The opening token is ``<s>``, the end token ``</s>``. A conversation with a system prompt, or without where the
template has no place for one; and, where it has tools, one that calls two.
"""

from __future__ import annotations

QWEN_OFFER = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
ADD
NOW
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
"""
QWEN_CALLS = """<|im_start|>user
2 + 3?<|im_end|>
<|im_start|>assistant
⟦<tool_call>
{"name": "add", "arguments": {"a": 2, "b": 3}}
</tool_call>
<tool_call>
{"name": "now", "arguments": {}}
</tool_call><|im_end|>⟧
<|im_start|>user
<tool_response>
5
</tool_response>
<tool_response>
"noon"
</tool_response><|im_end|>
<|im_start|>assistant
"""
GRANITE4_OFFER = """\
You are a helpful assistant with access to the following tools. You may call one or more tools to assist with the user \
query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
ADD
NOW
</tools>

For each tool call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>. If a tool does not exist in the provided list of tools, notify the user that you do not have the ability \
to fulfill the request.<|end_of_text|>
"""
GRANITE3_TOOLS = """\
Knowledge Cutoff Date: April 2024. Today's Date: July 26, 2024. You are Granite, developed by IBM. You are a helpful \
assistant with access to the following tools. When a tool is required to answer the user's query, respond only with \
<|tool_call|> followed by a JSON list of tools used. If a tool does not exist in the provided list of tools, notify \
the user that you do not have the ability to fulfill the request."""
LLAMA_OFFER = """\
Given the following functions, please respond with a JSON for a function call with its proper arguments that best \
answers the given prompt.

Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.Do not use \
variables.

ADD4

NOW4

"""
HARMONY = """\
<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.
Knowledge cutoff: 2024-06
Current date: 2024-07-26

Reasoning: medium

# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>"""

CHATML_TURNS = """<|im_start|>user
2 + 3?<|im_end|>
<|im_start|>assistant
⟦5<|im_end|>⟧
<|im_start|>user
And 2 * 3?<|im_end|>
<|im_start|>assistant
⟦6<|im_end|>⟧
"""
CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n" + CHATML_TURNS
LLAMA3 = (
    "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd 2 * 3?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n⟦6<|eot_id|>⟧"
)
GRANITE = (
    "<|start_of_role|>system<|end_of_role|>Be brief.<|end_of_text|>\n"
    "<|start_of_role|>user<|end_of_role|>2 + 3?<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>⟦5<|end_of_text|>⟧\n"
    "<|start_of_role|>user<|end_of_role|>And 2 * 3?<|end_of_text|>\n"
    "<|start_of_role|>assistant<|end_of_role|>⟦6<|end_of_text|>⟧\n"
)
LAST_THOUGHT = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n<|im_start|>assistant\n{first}\n"
    "<|im_start|>user\nAnd 2 * 3?<|im_end|>\n<|im_start|>assistant\n{last}\n"
)

CHATS: dict[str, str] = {
    "chatml": CHATML,
    "yi1_5": "Be brief." + CHATML_TURNS,
    "internlm2": "<s>" + CHATML,
    "smollm2": CHATML,
    "smollm3": (
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 26 July 2024\n"
        "Reasoning Mode: /think\n\n## Custom Instructions\n\nBe brief.\n\n" + CHATML_TURNS
    ),
    "qwen2": CHATML,
    "qwen2_for_tool": CHATML,
    "qwen2_5": CHATML,
    "qwen2_5_math": CHATML,
    "qwen3-instruct": CHATML,
    "qwen3": LAST_THOUGHT.format(first="⟦5<|im_end|>⟧", last="⟦<think>\n\n</think>\n\n6<|im_end|>⟧"),
    "qwen_qwq": LAST_THOUGHT.format(first="5<|im_end|>", last="<think>\n⟦\n</think>\n\n6<|im_end|>⟧"),
    "llama2": "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n2 + 3? [/INST]⟦ 5 </s>⟧<s>[INST] And 2 * 3? [/INST]⟦ 6 </s>⟧",
    "llama3": LLAMA3,
    "llama3_for_tool": LLAMA3,
    "llama3_1": LLAMA3.replace(
        "Be brief.", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief."
    ),
    "llama4": (
        "<s><|header_start|>system<|header_end|>\n\nBe brief.<|eot|>"
        "<|header_start|>user<|header_end|>\n\n2 + 3?<|eot|><|header_start|>assistant<|header_end|>\n\n⟦5<|eot|>⟧"
        "<|header_start|>user<|header_end|>\n\nAnd 2 * 3?<|eot|><|header_start|>assistant<|header_end|>\n\n⟦6<|eot|>⟧"
    ),
    "mistral": "<s>[INST] 2 + 3? [/INST]⟦5</s>⟧[INST] And 2 * 3? [/INST]⟦6</s>⟧",
    "mistral_v1": "<s> [INST] Be brief.\n\n2 + 3? [/INST]⟦ 5</s>⟧ [INST] And 2 * 3? [/INST]⟦ 6</s>⟧",
    "mistral_v3": "<s>[INST] Be brief.\n\n2 + 3?[/INST]⟦ 5</s>⟧[INST] And 2 * 3?[/INST]⟦ 6</s>⟧",
    "mistral_v3_tekken": "<s>[INST]Be brief.\n\n2 + 3?[/INST]⟦5</s>⟧[INST]And 2 * 3?[/INST]⟦6</s>⟧",
    "mistral_v7": (
        "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] 2 + 3?[/INST]⟦ 5</s>⟧[INST] And 2 * 3?[/INST]⟦ 6</s>⟧"
    ),
    "mistral_v7_tekken": (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]2 + 3?[/INST]⟦5</s>⟧[INST]And 2 * 3?[/INST]⟦6</s>⟧"
    ),
    "mistral_v11": (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]2 + 3?[/INST]⟦5</s>⟧[INST]And 2 * 3?[/INST]⟦6</s>⟧"
    ),
    "gemma": (
        "<s><start_of_turn>user\n2 + 3?<end_of_turn>\n<start_of_turn>model\n⟦5<end_of_turn>⟧\n"
        "<start_of_turn>user\nAnd 2 * 3?<end_of_turn>\n<start_of_turn>model\n⟦6<end_of_turn>⟧\n"
    ),
    "gemma3": (
        "<s><start_of_turn>user\nBe brief.\n\n2 + 3?<end_of_turn>\n<start_of_turn>model\n⟦5<end_of_turn>⟧\n"
        "<start_of_turn>user\nAnd 2 * 3?<end_of_turn>\n<start_of_turn>model\n⟦6<end_of_turn>⟧\n"
    ),
    "phi3": (
        "<|system|>\nBe brief.<|end|>\n<|user|>\n2 + 3?<|end|>\n<|assistant|>\n⟦5<|end|>⟧\n"
        "<|user|>\nAnd 2 * 3?<|end|>\n<|assistant|>\n⟦6<|end|>⟧\n</s>"
    ),
    "phi4": (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|>"
        "<|im_start|>user<|im_sep|>2 + 3?<|im_end|><|im_start|>assistant<|im_sep|>⟦5<|im_end|>⟧"
        "<|im_start|>user<|im_sep|>And 2 * 3?<|im_end|><|im_start|>assistant<|im_sep|>⟦6<|im_end|>⟧"
    ),
    "phi4_mini": (
        "<|system|>Be brief.<|end|><|user|>2 + 3?<|end|><|assistant|>⟦5<|end|>⟧"
        "<|user|>And 2 * 3?<|end|><|assistant|>⟦6<|end|>⟧</s>"
    ),
    "deepseek": "<s>Be brief.\n\nUser: 2 + 3?\n\nAssistant:⟦ 5</s>⟧User: And 2 * 3?\n\nAssistant:⟦ 6</s>⟧",
    "deepseek_coder": (
        "<s>Be brief.### Instruction:\n2 + 3?\n### Response:\n⟦5\n<|EOT|>⟧\n"
        "### Instruction:\nAnd 2 * 3?\n### Response:\n⟦6\n<|EOT|>⟧\n"
    ),
    "deepseek_v3": (
        "<s>Be brief.<｜User｜>2 + 3?<｜Assistant｜>⟦5<｜end▁of▁sentence｜>⟧"
        "<｜User｜>And 2 * 3?<｜Assistant｜>⟦6<｜end▁of▁sentence｜>⟧"
    ),
    "deepseek_r1": (
        "<s>Be brief.<｜User｜>2 + 3?<｜Assistant｜>5<｜end▁of▁sentence｜>"
        "<｜User｜>And 2 * 3?<｜Assistant｜><think>\n⟦\n</think>\n\n6<｜end▁of▁sentence｜>⟧"
    ),
    "chatglm3": (
        "[gMASK]sop<|system|>\n Be brief.<|user|>\n 2 + 3?<|assistant|>⟦\n 5<|user|>⟧\n And 2 * 3?"
        "<|assistant|>⟦\n 6<|user|>⟧"
    ),
    "glm4": (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\n2 + 3?<|assistant|>⟦\n5<|user|>⟧\nAnd 2 * 3?"
        "<|assistant|>⟦\n6<|user|>⟧"
    ),
    "granite3": GRANITE,
    "granite4": GRANITE,
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\n2 + 3?</s>\n<|assistant|>\n⟦5</s>⟧\n"
        "<|user|>\nAnd 2 * 3?</s>\n<|assistant|>\n⟦6</s>⟧\n"
    ),
    "vicuna": "<s>Be brief. USER: 2 + 3? ASSISTANT:⟦ 5</s>⟧USER: And 2 * 3? ASSISTANT:⟦ 6</s>⟧",
    "alpaca": (
        "<s>Be brief.\n\n### Instruction:\n2 + 3?\n\n### Response:\n⟦5</s>⟧\n\n"
        "### Instruction:\nAnd 2 * 3?\n\n### Response:\n⟦6</s>⟧\n\n"
    ),
    "command_r": (
        "<s><|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>2 + 3?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦5<|END_OF_TURN_TOKEN|>⟧"
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>And 2 * 3?<|END_OF_TURN_TOKEN|>"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>⟦6<|END_OF_TURN_TOKEN|>⟧"
    ),
    "gpt_oss": (
        HARMONY + "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|>"
        "<|start|>user<|message|>2 + 3?<|end|><|start|>assistant⟦<|channel|>final<|message|>5⟧<|end|>"
        "<|start|>user<|message|>And 2 * 3?<|end|><|start|>assistant⟦<|channel|>final<|message|>6<|return|>⟧"
    ),
    "hymba": (
        "<extra_id_0>System\nBe brief.\n\n<extra_id_1>User\n2 + 3?\n<extra_id_1>Assistant\n⟦5\n<extra_id_1>⟧User\n"
        "And 2 * 3?\n<extra_id_1>Assistant\n⟦6\n</s>⟧"
    ),
    "openchat": (
        "<s>GPT4 Correct System: Be brief.<|end_of_turn|>GPT4 Correct User: 2 + 3?<|end_of_turn|>"
        "GPT4 Correct Assistant:⟦ 5<|end_of_turn|>⟧GPT4 Correct User: And 2 * 3?<|end_of_turn|>"
        "GPT4 Correct Assistant:⟦ 6<|end_of_turn|>⟧"
    ),
    "exaone3": (
        "[|system|]Be brief.[|endofturn|]\n[|user|]2 + 3?\n[|assistant|]⟦5[|endofturn|]⟧\n"
        "[|user|]And 2 * 3?\n[|assistant|]⟦6[|endofturn|]⟧\n"
    ),
    "seed_oss": (
        "<s>system\nBe brief.</s><s>user\n2 + 3?</s><s>assistant\n⟦5</s>⟧<s>user\nAnd 2 * 3?</s><s>assistant\n⟦6</s>⟧"
    ),
    "orion": "<s>Human: 2 + 3?\n\nAssistant: </s>⟦5</s>⟧Human: And 2 * 3?\n\nAssistant: </s>⟦6</s>⟧",
    "megrez": (
        "<|role_start|>system<|role_end|>Be brief.<|turn_end|><|role_start|>user<|role_end|>2 + 3?<|turn_end|>"
        "<|role_start|>assistant<|role_end|>⟦5<|turn_end|>⟧<|role_start|>user<|role_end|>And 2 * 3?<|turn_end|>"
        "<|role_start|>assistant<|role_end|>⟦6<|turn_end|>⟧"
    ),
    "kimi_k2": (
        "<|im_system|>system<|im_middle|>Be brief.<|im_end|><|im_user|>user<|im_middle|>2 + 3?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>⟦5<|im_end|>⟧<|im_user|>user<|im_middle|>And 2 * 3?<|im_end|>"
        "<|im_assistant|>assistant<|im_middle|>⟦6<|im_end|>⟧"
    ),
    "empty": "<s>Be brief.2 + 3?⟦5</s>⟧And 2 * 3?⟦6</s>⟧",
    "empty_no_special_tokens": "Be brief.2 + 3?⟦5⟧And 2 * 3?⟦6⟧",
}
WITHOUT_SYSTEM = frozenset(("mistral", "gemma", "orion"))

MISTRAL_TOOLS = (
    "<s>[AVAILABLE_TOOLS] [ADD, NOW][/AVAILABLE_TOOLS][INST] 2 + 3?[/INST]"
    '⟦[TOOL_CALLS] [{"name": "add", "arguments": {"a": 2, "b": 3}, "id": "000000001"}, '
    '{"name": "now", "arguments": {}, "id": "000000002"}]</s>⟧'
    '[TOOL_RESULTS] {"content": 5, "call_id": "000000001"}[/TOOL_RESULTS]'
    '[TOOL_RESULTS] {"content": "noon", "call_id": "000000002"}[/TOOL_RESULTS]⟦ 5</s>⟧'
)
# No system prompt, two tools, both called at once (llama3_1 can call one only), their results, an answer.
CALLS: dict[str, str] = {
    "qwen2_5": (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n"
        f"{QWEN_OFFER}{QWEN_CALLS}⟦5<|im_end|>⟧\n"
    ),
    "qwen2_5_math": (
        "<|im_start|>system\nPlease reason step by step, and put your final answer within \\boxed{}.\n\n"
        f"{QWEN_OFFER}{QWEN_CALLS}⟦5<|im_end|>⟧\n"
    ),
    "qwen3": f"<|im_start|>system\n{QWEN_OFFER}{QWEN_CALLS}⟦<think>\n\n</think>\n\n5<|im_end|>⟧\n",
    "qwen3-instruct": f"<|im_start|>system\n{QWEN_OFFER}{QWEN_CALLS}⟦5<|im_end|>⟧\n",
    "qwen_qwq": (
        f"<|im_start|>system\n\n\n{QWEN_OFFER}{QWEN_CALLS}<think>\n⟦\n</think>\n\n5<|im_end|>⟧\n".replace(
            "assistant\n⟦<tool_call>", "assistant\n<think>\n⟦\n</think>\n\n<tool_call>"
        )
    ),
    "qwen2_for_tool": (
        "<|im_start|>system\nYou are a helpful assistant.\n[ADD, NOW]<|im_end|>\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        '<|im_start|>assistant\n⟦{"name": "add", "arguments": {"a": 2, "b": 3}}\n{"name": "now", "arguments": {}}'
        "<|im_end|>⟧\n<|im_start|>tool\n5<|im_end|>\n"
        '<|im_start|>tool\n"noon"<|im_end|>\n<|im_start|>assistant\n⟦5<|im_end|>⟧\n'
    ),
    "llama3_for_tool": (
        "<s><|start_header_id|>system<|end_header_id|>\n\n\n[ADD, NOW]<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n2 + 3?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        '⟦{"name": "add", "arguments": {"a": 2, "b": 3}}\n{"name": "now", "arguments": {}}<|eot_id|>⟧'
        "<|start_header_id|>tool<|end_header_id|>\n\n5<|eot_id|>"
        '<|start_header_id|>tool<|end_header_id|>\n\n"noon"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
    ),
    "llama3_1": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nEnvironment: ipython\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n{LLAMA_OFFER}2 + 3?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
        '⟦{"name": "add", "parameters": {"a": 2, "b": 3}}<|eot_id|>⟧'
        '<|start_header_id|>ipython<|end_header_id|>\n\n"5"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦5<|eot_id|>⟧"
    ),
    "mistral_v3": MISTRAL_TOOLS,
    "mistral_v3_tekken": (
        MISTRAL_TOOLS.replace("] [", "][").replace("] {", "]{").replace("] 2", "]2").replace("⟦ 5", "⟦5")
    ),
    "mistral_v11": (
        "<s>[AVAILABLE_TOOLS][ADD, NOW][/AVAILABLE_TOOLS][INST]2 + 3?[/INST]"
        '⟦[TOOL_CALLS]add[CALL_ID]000000001[ARGS]{"a": 2, "b": 3}[TOOL_CALLS]now[CALL_ID]000000002[ARGS]{}</s>⟧'
        "[TOOL_RESULTS]000000001[TOOL_CONTENT]5[/TOOL_RESULTS]"
        '[TOOL_RESULTS]000000002[TOOL_CONTENT]"noon"[/TOOL_RESULTS]⟦5</s>⟧'
    ),
    "phi4_mini": (
        "<|system|><|tool|>ADD_FUNCTION<|/tool|><|tool|>NOW_FUNCTION<|/tool|>You are a helpful assistant with some "
        'tools.\nTo use a tool, respond in this format: <|tool_call|>{"name": "foo", "arguments": {"a": 1}}'
        "<|/tool_call|><|end|><|user|>2 + 3?<|end|><|assistant|>"
        '⟦<|tool_call|>{"name": "add", "arguments": {"a": 2, "b": 3}}<|/tool_call|>'
        '<|tool_call|>{"name": "now", "arguments": {}}<|/tool_call|><|end|>⟧'
        '<|tool_response|>"5"<|end|><|tool_response|>"\\"noon\\""<|end|><|assistant|>⟦5<|end|>⟧</s>'
    ),
    "granite3": (
        f"<|start_of_role|>system<|end_of_role|>{GRANITE3_TOOLS}<|end_of_text|>\n"
        "<|start_of_role|>available_tools<|end_of_role|>BOTH4<|end_of_text|>\n"
        "<|start_of_role|>user<|end_of_role|>2 + 3?<|end_of_text|>\n"
        '<|start_of_role|>assistant<|end_of_role|>⟦<|tool_call|>[{"name": "add", "arguments": {"a": 2, "b": 3}}, '
        '{"name": "now", "arguments": {}}]<|end_of_text|>⟧\n'
        "<|start_of_role|>tool<|end_of_role|>5<|end_of_text|>\n"
        '<|start_of_role|>tool<|end_of_role|>"noon"<|end_of_text|>\n'
        "<|start_of_role|>assistant<|end_of_role|>⟦5<|end_of_text|>⟧\n"
    ),
    "granite4": (
        f"<|start_of_role|>system<|end_of_role|>{GRANITE4_OFFER}"
        "<|start_of_role|>user<|end_of_role|>2 + 3?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
        '⟦<tool_call>\n{"name": "add", "arguments": {"a": 2, "b": 3}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|end_of_text|>⟧\n'
        "<|start_of_role|>user<|end_of_role|>\n<tool_response>\n5\n</tool_response>\n"
        '<tool_response>\n"noon"\n</tool_response><|end_of_text|>\n'
        "<|start_of_role|>assistant<|end_of_role|>⟦5<|end_of_text|>⟧\n"
    ),
    "hymba": (
        "<extra_id_0>System\n\n\n<tool> ADD </tool>\n<tool> NOW </tool>\n\n<extra_id_1>User\n2 + 3?\n"
        '<extra_id_1>Assistant\n⟦<toolcall> {"name": "add", "arguments": {"a": 2, "b": 3}} </toolcall>\n'
        '<toolcall> {"name": "now", "arguments": {}} </toolcall>\n<extra_id_1>⟧Tool\n5\n'
        '<extra_id_1>Tool\n"noon"\n<extra_id_1>Assistant\n⟦5\n</s>⟧'
    ),
}

# The question, thoughts and answer, twice: those of the first turn stay or go.
THOUGHTS: dict[str, str] = {
    "smollm3": (
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\nToday Date: 26 July 2024\n"
        "Reasoning Mode: /think\n\n## Custom Instructions\n\nBe brief.\n\n<|im_start|>user\n2 + 3?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\n2, 3.\n</think>\n5<|im_end|>⟧\n<|im_start|>user\nAnd 2 * 3?<|im_end|>\n"
        "<|im_start|>assistant\n⟦<think>\nTwice 3.\n</think>\n6<|im_end|>⟧\n"
    ),
    "qwen3": LAST_THOUGHT.format(first="5<|im_end|>", last="⟦<think>\nTwice 3.\n</think>\n\n6<|im_end|>⟧"),
    "qwen_qwq": LAST_THOUGHT.format(first="5<|im_end|>", last="<think>\n⟦Twice 3.\n</think>\n\n6<|im_end|>⟧"),
    "deepseek_r1": (
        "<s>Be brief.<｜User｜>2 + 3?<｜Assistant｜>5<｜end▁of▁sentence｜>"
        "<｜User｜>And 2 * 3?<｜Assistant｜><think>\n⟦Twice 3.\n</think>\n\n6<｜end▁of▁sentence｜>⟧"
    ),
    "gpt_oss": (
        HARMONY + "<|start|>developer<|message|># Instructions\n\nBe brief.\n\n<|end|>"
        "<|start|>user<|message|>2 + 3?<|end|><|start|>assistant<|channel|>final<|message|>5<|end|>"
        "<|start|>user<|message|>And 2 * 3?<|end|><|start|>assistant"
        "⟦<|channel|>analysis<|message|>Twice 3.<|end|><|start|>assistant<|channel|>final<|message|>6<|return|>⟧"
    ),
}
