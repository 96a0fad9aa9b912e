"""Declares the forms of data rows and the places they are read from."""

from __future__ import annotations

from collections.abc import Iterable

from lmflow_core.api import DatasetSpec, SourceSpec, hookimpl


@hookimpl
def lmflow_register_datasets() -> Iterable[DatasetSpec]:
    """Offer the forms."""
    return [
        _spec("text_only", "plain:TextOnly", "Plain text, all of it trained on.", "text", '{"text": "A whole text."}'),
        _spec(
            "text2text",
            "plain:Text2Text",
            "A prompt and its completion, without a template.",
            "input, output",
            '{"input": "2 + 3 =", "output": " 5"}',
        ),
        _spec(
            "prompt_completion",
            "plain:PromptCompletion",
            "The same, or as messages.",
            "prompt, completion",
            '{"prompt": "2 + 3 =", "completion": " 5"}',
        ),
        _spec(
            "text_to_textlist",
            "plain:TextToTextList",
            "Several answers to a text.",
            "input, output [text]",
            '{"input": "2 + 3 =", "output": ["5", "6"]}',
        ),
        _spec(
            "text_to_scored_textlist",
            "plain:TextToScoredTextList",
            "Several answers to a text, each with a score.",
            "input, output [score, text]",
            '{"input": "2 + 3 =", "output": [{"score": 1.0, "text": "5"}]}',
        ),
        _spec("float_only", "plain:FloatOnly", "A number.", "value", '{"value": 0.5}'),
        _spec(
            "image_text",
            "plain:ImageTextRow",
            "Images and a text about them.",
            "images|image, text",
            '{"images": ["cat.png"], "text": "A cat."}',
        ),
        _spec(
            "conversation",
            "chats:LmflowConversation",
            "LMFlow's conversations.",
            "messages, system?, tools?, images?",
            '{"system": "Be brief.", "messages": [{"role": "user", "content": "What is 2 + 3?"}, '
            '{"role": "assistant", "content": "5"}]}',
        ),
        _spec(
            "alpaca",
            "chats:Alpaca",
            "An instruction with optional input.",
            "instruction, input?, output, history?, images?",
            '{"instruction": "Add.", "input": "2, 3", "output": "5"}',
        ),
        _spec(
            "question_answer",
            "chats:QuestionAnswer",
            "A question and its answer.",
            "question, answer, images?",
            '{"question": "What is 2 + 3?", "answer": "5"}',
        ),
        _spec(
            "instruction_response",
            "chats:InstructionResponse",
            "An instruction with optional context, as in Dolly.",
            "instruction, context?, response",
            '{"instruction": "Sum up.", "context": "It rained.", "response": "Rain."}',
        ),
        _spec(
            "sharegpt",
            "chats:ShareGpt",
            "Turns from human and gpt.",
            "conversations [from, value], tools?, images?",
            '{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}',
        ),
        _spec(
            "messages",
            "chats:Messages",
            "OpenAI messages.",
            "messages [role, content], tools?, images?",
            '{"messages": [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}]}',
        ),
        _spec(
            "paired_conversation",
            "preferences:PairedConversation",
            "Two conversations, one of them preferred.",
            "chosen {messages}, rejected {messages}",
            '{"chosen": {"messages": [{"role": "user", "content": "What is 2 + 3?"}, {"role": '
            '"assistant", "content": "5"}]}, "rejected": {"messages": [{"role": "user", "content": '
            '"What is 2 + 3?"}, {"role": "assistant", "content": "6"}]}}',
        ),
        _spec(
            "paired_text_to_text",
            "preferences:PairedTextToText",
            "Two answers to a text, one of them preferred.",
            "prompt, chosen, rejected, margin?",
            '{"prompt": "2 + 3 =", "chosen": " 5", "rejected": " 6", "margin": 1.5}',
        ),
        _spec(
            "preference",
            "preferences:ChatPreference",
            "Two answers in a chat, one of them preferred.",
            "prompt|conversations|instruction, chosen, rejected",
            '{"instruction": "Hi", "chosen": "Hello!", "rejected": "Go away."}',
        ),
        _spec(
            "dialogue_pair",
            "preferences:DialoguePair",
            "Two dialogues in texts, one of them preferred.",
            "chosen, rejected (texts with Human: and Assistant:)",
            '{"chosen": "\\n\\nHuman: Hi\\n\\nAssistant: Hello!", "rejected": "\\n\\nHuman: Hi\\n\\nAssistant: '
            'Go away."}',
        ),
        _spec(
            "question_pair",
            "preferences:QuestionPair",
            "Two answers to a question, the first of them preferred.",
            "question, response_j, response_k",
            '{"question": "What is 2 + 3?", "response_j": "5", "response_k": "6"}',
        ),
        _spec(
            "prompt",
            "prompts:PromptRow",
            "A prompt without its answer.",
            "prompt (text or messages) | messages ending with the user, tools?, images?",
            '{"prompt": "What is 2 + 3?"}',
        ),
        _spec(
            "kto",
            "preferences:Kto",
            "An answer with a verdict.",
            "messages|prompt+completion, label",
            '{"prompt": "2 + 3 =", "completion": " 5", "label": true}',
        ),
    ]


@hookimpl
def lmflow_register_sources() -> Iterable[SourceSpec]:
    """Offer the places."""
    return [
        SourceSpec(
            name="parquet",
            target="lmflow_datasets.sources:ParquetFile",
            summary="Parquet files.",
            suffixes=(".parquet",),
            requires=("pyarrow",),
        ),
        SourceSpec(
            name="arrow",
            target="lmflow_datasets.sources:ArrowFile",
            summary="Arrow files, as datasets saves them.",
            suffixes=(".arrow",),
            requires=("pyarrow",),
        ),
        SourceSpec(
            name="hub",
            target="lmflow_datasets.sources:HubDataset",
            summary="Data sets of the Hugging Face hub.",
            hub=True,
            requires=("datasets",),
        ),
    ]


def _spec(name: str, target: str, summary: str, fields: str, example: str) -> DatasetSpec:
    target = f"lmflow_datasets.{target}"
    return DatasetSpec(name=name, target=target, summary=summary, fields=fields, example=example)
