#!/bin/sh
# Fine-tune SmolLM2-135M-Instruct on a guide to LMFlow, and show what it learned: the likelihood of answers it never
# saw, and one answer, before and after.
set -eu
output="${OUTPUT:-runs/quickstart}"
validation=examples/lmflow_guide/validation.jsonl
question="What is LMFlow?"

measure() { lmflow evaluate --model "$1" --dataset "$validation" --output-file "$2" >/dev/null; }
answer() { lmflow generate --model "$1" --prompt "$question" --max-new-tokens 80; }

echo "== before =="
mkdir -p runs
measure smollm2-135m-instruct runs/before.json
answer smollm2-135m-instruct

echo "== training =="
lmflow finetune examples/quickstart.yaml --output "$output" --overwrite

echo "== after =="
measure "$output" runs/after.json
answer "$output"

echo "== validation questions: negative log-likelihood per token =="
printf 'before  '; grep nll_per_token runs/before.json
printf 'after   '; grep nll_per_token runs/after.json
echo "The loss, drawn: $output/loss.png"
echo "Go on with:      .venv/bin/lmflow chat --model $output"
