#!/usr/bin/env bash
# The form of verl's examples/grpo_trainer/run_qwen3_8b_fsdp.sh, with fewer settings.
set -xeuo pipefail

DEVICE=${DEVICE:-$(python3 -c 'import torch_npu' 2>/dev/null && echo npu || echo gpu)}
TRAIN_BATCH_SIZE=${TRAIN_BATCH_SIZE:-}
ppo_mini_batch_size=${PPO_MINI_BATCH_SIZE:-128}
max_response_length=${MAX_RESPONSE_LENGTH:-2048}
save_freq=${SAVE_FREQ:-20}

EXTRA=()
case "${DEVICE}" in
    gpu)
        train_batch_size=${TRAIN_BATCH_SIZE:-512}
        EXTRA+=(
            # A comment (with brackets).
            actor_rollout_ref.rollout.enforce_eager=True
        )
        ;;
    npu)
        train_batch_size=${TRAIN_BATCH_SIZE:-16}
        max_response_length=$((1024 * 32))
        ;;
esac

DATA=(
    algorithm.adv_estimator=grpo
    data.train_files="['$HOME/data/train.parquet']"
    data.train_batch_size=${train_batch_size}
    data.max_prompt_length=$((1024 * 1))
    data.max_response_length=${max_response_length}
)
ACTOR=(
    actor_rollout_ref.model.path="base"
    actor_rollout_ref.actor.ppo_mini_batch_size=${ppo_mini_batch_size}
    actor_rollout_ref.rollout.n=5
)
LAUNCH=(python3)
if [ "${VERL_USE_UV:-1}" != 0 ]; then
    LAUNCH=(uv run --frozen --all-packages --extra vllm --extra fsdp python3)
fi
"${LAUNCH[@]}" -m verl.trainer.main_ppo \
    "${DATA[@]}" \
    "${ACTOR[@]}" \
    trainer.save_freq=${save_freq} \
    "${EXTRA[@]}" \
    "$@"
