"""Declares the conversation templates, by families; each is data in the module named here."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import TemplateSpec, hookimpl

# name, aliases, target, models it was made for, summary
_TEMPLATES: tuple[tuple[str, str, str, str, str], ...] = (
    ("chatml", "yi", "chatml:CHATML", "Yi, Hermes, Dolphin, SmolLM", "Turns between <|im_start|> and <|im_end|>."),
    ("yi1_5", "", "chatml:YI1_5", "Yi 1.5", "ChatML with a bare system prompt."),
    ("internlm2", "", "chatml:INTERNLM2", "InternLM 2, 2.5", "ChatML behind an opening token."),
    ("smollm2", "", "chatml:SMOLLM2", "SmolLM2", "ChatML with SmolLM2's default system prompt."),
    ("smollm3", "", "chatml:SMOLLM3", "SmolLM3", "ChatML with reasoning; dates in the system turn."),
    ("qwen2", "qwen1_5", "chatml:QWEN2", "Qwen1.5, Qwen2, Qwen2.5-VL", "ChatML with Qwen2's default system prompt."),
    ("qwen2_for_tool", "", "chatml:QWEN2_FOR_TOOL", "", "Qwen2 with calls as JSON and turns of a tool."),
    ("qwen2_5", "qwen2_5_1m qwen2.5", "chatml:QWEN2_5", "Qwen2.5, Qwen2.5-Coder, Qwen2.5-1M", "ChatML with tools."),
    ("qwen2_5_math", "", "chatml:QWEN2_5_MATH", "Qwen2.5-Math", "Qwen2.5 asked to reason step by step."),
    ("qwen_qwq", "qwq", "chatml:QWEN_QWQ", "QwQ", "Qwen2.5 with reasoning before every answer."),
    ("qwen3", "", "chatml:QWEN3", "Qwen3", "ChatML with tools and reasoning."),
    ("qwen3-instruct", "", "chatml:QWEN3_INSTRUCT", "Qwen3-Instruct-2507, Qwen3-VL", "Qwen3 without reasoning."),
    ("qwen3_coder", "qwen3-coder", "qwen:QWEN3_CODER", "Qwen3-Coder", "ChatML with calls as markup."),
    ("qwen3_5", "qwen3.5", "qwen:QWEN3_5", "Qwen3.5 from 4B", "Calls as markup, reasoning before every answer."),
    ("qwen3_6", "qwen3.6", "qwen:QWEN3_6", "Qwen3.6", "Qwen3.5 with JSON in its calls."),
    ("qwen3_5_small", "", "qwen:QWEN3_5_SMALL", "Qwen3.5 0.8B, 2B", "Qwen3.5 without reasoning unless asked."),
    ("qwen3_8", "qwen3.8", "qwen:QWEN3_8", "Qwen3.8", "Qwen3.6 that keeps the reasoning of earlier turns."),
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
    ("mistral_v13", "devstral", "mistral:MISTRAL_V13", "Devstral Small", "Mistral v11 without ids of calls."),
    ("ministral3", "", "mistral:MINISTRAL3", "Ministral 3 Reasoning", "Mistral v13 with reasoning."),
    ("gemma", "gemma2", "google:GEMMA", "Gemma, Gemma 2", "<start_of_turn> turns, no system prompt."),
    ("gemma3", "", "google:GEMMA3", "Gemma 3", "Gemma with the system prompt in the first question."),
    ("gemma4", "", "google:GEMMA4", "Gemma 4 E2B, E4B", "<|turn> turns with reasoning."),
    ("gemma4_31b", "", "google:GEMMA4_31B", "Gemma 4 31B", "Gemma 4 without reasoning unless asked."),
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
    (
        "deepseek_v3_1", "deepseek_v3.1 deepseek_v3_2 deepseek_v3.2", "deepseek:DEEPSEEK_V3_1", "DeepSeek V3.1, V3.2",
        "DeepSeek V3 without reasoning unless asked.",
    ),
    ("chatglm3", "", "glm:CHATGLM3", "ChatGLM3", "Role tags; the next turn ends an answer."),
    ("glm4", "", "glm:GLM4", "GLM-4", "Role tags; the next turn ends an answer."),
    ("glm4_5", "glm4_6 glm4.5 glm4.6", "glm:GLM4_5", "GLM-4.5, 4.6", "GLM-4 with reasoning and calls as markup."),
    ("glm4_7", "glm4.7", "glm:GLM4_7", "GLM-4.7", "GLM-4.6 without line breaks, reasoning first."),
    ("granite3", "granite granite3_3", "granite:GRANITE3", "Granite 3.1 to 3.3", "Role tags, with tools."),
    ("granite4", "", "granite:GRANITE4", "Granite 4.0", "Granite with tools as in Qwen."),
    ("granite4_1", "granite4.1", "granite:GRANITE4_1", "Granite 4.1", "Granite 4 without a default system prompt."),
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
    ("kimi_k2", "", "moonshot:KIMI_K2", "Kimi K2", "Turns with <|im_middle|>."),
    ("kimi_k2_0905", "", "moonshot:KIMI_K2_0905", "Kimi K2 0905", "Kimi K2 with tools."),
    ("kimi_k2_thinking", "", "moonshot:KIMI_K2_THINKING", "Kimi K2 Thinking", "Kimi K2 with tools and reasoning."),
    ("minimax_m2", "", "others:MINIMAX_M2", "MiniMax-M2", "Calls as markup, reasoning before every answer."),
    ("nemotron3", "", "nvidia:NEMOTRON3", "Nemotron 3 Nano, Super", "ChatML with calls as markup, reasoning first."),
    (
        "nemotron3_5", "nemotron3.5 nemotron3_ultra", "nvidia:NEMOTRON3_5", "Nemotron 3 Ultra, 3.5 Lightning",
        "Nemotron 3 with fewer line breaks.",
    ),
    ("lfm2", "", "liquid:LFM2", "LFM2", "ChatML with calls in the form of Python."),
    ("lfm2_5", "lfm2.5", "liquid:LFM2_5", "LFM2.5 Instruct", "LFM2 with less markup around tools."),
    ("lfm2_5_thinking", "", "liquid:LFM2_5_THINKING", "LFM2.5 8B-A1B, Thinking", "LFM2.5 with reasoning."),
    ("minicpm5", "", "others:MINICPM5", "MiniCPM5", "ChatML with reasoning."),
    ("hunyuan3", "hy3", "tencent:HUNYUAN3", "Hunyuan 3", "Calls as markup, no reasoning unless asked."),
    ("apertus", "", "others:APERTUS", "Apertus", "Role tags with a developer's turn."),
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
