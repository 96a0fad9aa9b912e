"""Declares the conversation templates, by families; each is data in the module named here."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TemplateSpec, hookimpl

# name, aliases, target, models it was made for, summary
_TEMPLATES: tuple[tuple[str, str, str, str, str], ...] = (
    ("chatml", "yi", "chatml:CHATML", "Yi, Hermes, Dolphin, SmolLM", "Turns between <|im_start|> and <|im_end|>."),
    ("yi1_5", "", "chatml:YI1_5", "Yi 1.5", "ChatML with a bare system prompt."),
    ("internlm2", "", "chatml:INTERNLM2", "InternLM 2, 2.5, LFM2", "ChatML behind an opening token."),
    ("smollm2", "", "chatml:SMOLLM2", "SmolLM2", "ChatML with SmolLM2's default system prompt."),
    ("smollm3", "", "chatml:SMOLLM3", "SmolLM3", "ChatML with reasoning; dates in the system turn."),
    ("qwen2", "qwen1_5", "chatml:QWEN2", "Qwen1.5, Qwen2", "ChatML with Qwen2's default system prompt."),
    ("qwen2_for_tool", "", "chatml:QWEN2_FOR_TOOL", "", "Qwen2 with calls as JSON and turns of a tool."),
    ("qwen2_5", "qwen2_5_1m qwen2.5", "chatml:QWEN2_5", "Qwen2.5, Qwen2.5-Coder, Qwen2.5-1M", "ChatML with tools."),
    ("qwen2_5_math", "", "chatml:QWEN2_5_MATH", "Qwen2.5-Math", "Qwen2.5 asked to reason step by step."),
    ("qwen_qwq", "qwq", "chatml:QWEN_QWQ", "QwQ", "Qwen2.5 with reasoning before every answer."),
    ("qwen3", "", "chatml:QWEN3", "Qwen3", "ChatML with tools and reasoning."),
    ("qwen3-instruct", "", "chatml:QWEN3_INSTRUCT", "Qwen3-Instruct-2507", "Qwen3 without reasoning."),
    ("llama2", "", "llama:LLAMA2", "Llama 2 Chat", "[INST] turns, system in <<SYS>>."),
    ("llama3", "", "llama:LLAMA3", "Llama 3 Instruct", "Role headers, turns end with <|eot_id|>."),
    ("llama3_for_tool", "", "llama:LLAMA3_FOR_TOOL", "", "Llama 3 with calls as JSON and turns of a tool."),
    (
        "llama3_1", "llama3.1 llama3_2 llama3.2 llama3_3 llama3.3", "llama:LLAMA3_1", "Llama 3.1, 3.2, 3.3 Instruct",
        "Llama 3 with dates and tools.",
    ),
    ("llama4", "", "llama:LLAMA4", "Llama 4 Instruct", "Llama 4: turns end with <|eot|>."),
    ("mistral", "", "mistral:MISTRAL", "Mistral 7B Instruct 0.1, 0.2", "[INST] turns, no system prompt."),
    ("mistral_v1", "", "mistral:MISTRAL_V1", "Mistral 7B Instruct 0.2, Mixtral", "[INST] turns with spaces."),
    ("mistral_v3", "", "mistral:MISTRAL_V3", "Mistral 7B Instruct 0.3", "[INST] turns with tools."),
    ("mistral_v3_tekken", "mistral_nemo", "mistral:MISTRAL_V3_TEKKEN", "Mistral Nemo", "Mistral v3 without spaces."),
    ("mistral_v7", "", "mistral:MISTRAL_V7", "Mistral Large 2411", "[INST] turns and a [SYSTEM_PROMPT]."),
    ("mistral_v7_tekken", "", "mistral:MISTRAL_V7_TEKKEN", "Mistral Small 3, 3.1", "Mistral v7 without spaces."),
    ("mistral_v11", "", "mistral:MISTRAL_V11", "Mistral Small 3.2", "Mistral v7 without spaces, with tools."),
    ("gemma", "gemma2", "google:GEMMA", "Gemma, Gemma 2", "<start_of_turn> turns, no system prompt."),
    ("gemma3", "", "google:GEMMA3", "Gemma 3", "Gemma with the system prompt in the first question."),
    ("phi3", "phi3_5 phi3.5", "microsoft:PHI3", "Phi 3, 3.5", "Role tags, turns end with <|end|>."),
    ("phi4", "", "microsoft:PHI4", "Phi 4", "ChatML with <|im_sep|>."),
    ("phi4_mini", "", "microsoft:PHI4_MINI", "Phi 4 mini", "Role tags without line breaks, with tools."),
    ("deepseek", "deepseek_v2", "deepseek:DEEPSEEK", "DeepSeek LLM, V2, V2.5", "User: and Assistant:."),
    ("deepseek_coder", "", "deepseek:DEEPSEEK_CODER", "DeepSeek Coder", "### Instruction: and ### Response:."),
    ("deepseek_v3", "", "deepseek:DEEPSEEK_V3", "DeepSeek V3", "<｜User｜> and <｜Assistant｜>."),
    (
        "deepseek_r1", "deepseek_r1_distill", "deepseek:DEEPSEEK_R1", "DeepSeek R1, R1-Distill",
        "DeepSeek V3 with reasoning before every answer.",
    ),
    ("chatglm3", "", "glm:CHATGLM3", "ChatGLM3", "Role tags; the next turn ends an answer."),
    ("glm4", "", "glm:GLM4", "GLM-4", "Role tags; the next turn ends an answer."),
    ("granite3", "granite granite3_3", "granite:GRANITE3", "Granite 3.1 to 3.3", "Role tags, with tools."),
    ("granite4", "", "granite:GRANITE4", "Granite 4", "Granite with tools as in Qwen."),
    ("zephyr", "", "others:ZEPHYR", "Zephyr, TinyLlama Chat", "Role tags, turns end with the end token."),
    ("vicuna", "", "others:VICUNA", "Vicuna 1.1, 1.5", "USER: and ASSISTANT: in one line."),
    ("alpaca", "", "others:ALPACA", "Alpaca", "### Instruction: and ### Response:."),
    ("command_r", "command-r aya", "others:COMMAND_R", "Command R, R+, Aya", "Turns of <|START_OF_TURN_TOKEN|>."),
    ("gpt_oss", "gpt-oss", "others:GPT_OSS", "gpt-oss", "Harmony: channels for reasoning and answer."),
    ("hymba", "", "others:HYMBA", "Hymba Instruct", "<extra_id_1> turns, with tools."),
    ("openchat", "", "others:OPENCHAT", "OpenChat 3.5, Starling", "GPT4 Correct User: and Assistant:."),
    ("exaone3", "", "others:EXAONE3", "EXAONE 3, 3.5", "[|user|] and [|assistant|]."),
    ("seed_oss", "", "others:SEED_OSS", "Seed-OSS", "Turns between opening and end token."),
    ("orion", "", "others:ORION", "Orion Chat", "Human: and Assistant:."),
    ("megrez", "", "others:MEGREZ", "Megrez", "<|role_start|> turns."),
    ("kimi_k2", "", "others:KIMI_K2", "Kimi K2", "Turns with <|im_middle|>."),
    ("empty", "disable", "others:EMPTY", "", "No markup: contents and the end token."),
    ("empty_no_special_tokens", "", "others:EMPTY_NO_SPECIAL_TOKENS", "", "Nothing but the contents."),
)  # fmt: skip


@hookimpl
def lmflow_register_templates() -> Iterable[TemplateSpec]:
    """Offer the templates."""
    for name, aliases, target, models, summary in _TEMPLATES:
        yield TemplateSpec(
            name=name,
            aliases=tuple(aliases.split()),
            target=f"lmflow_templates.{target}",
            models=models,
            summary=summary,
        )
