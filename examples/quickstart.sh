#!/bin/sh
# Fine-tune SmolLM2-135M-Instruct on a guide to LMFlow, and show what it learned: the likelihood of answers it never
# saw, and one answer, before and after.
set -eu
output="${OUTPUT:-runs/quickstart}"
validation=examples/lmflow_guide/validation.jsonl
question="What is LMFlow?"

show() {
    lmflow evaluate --model "$1" --dataset "$validation" --output-file "$2"
    lmflow generate --model "$1" --prompt "$question" --max-new-tokens 80
}

echo "== before: $validation, and an answer to: $question =="
mkdir -p runs
show smollm2-135m-instruct runs/before.json

echo "== training =="
lmflow finetune examples/quickstart.yaml --output "$output" --overwrite

echo "== after: the same =="
show "$output" runs/after.json

echo "The loss, drawn: $output/loss.png"
echo "Go on with:      .venv/bin/lmflow chat --model $output"
