# docker build -t omr . && docker run --rm -v "$PWD/runs:/omr/runs" omr recipe configs/digits.yaml --out runs/digits
# On several GPUs: docker run --rm --gpus all --shm-size=1g --ulimit memlock=-1 -v "$PWD/runs:/omr/runs" omr sft sft.yaml --out runs/sft --gpus 8
FROM rust:1.95-slim-bookworm AS build
WORKDIR /omr
COPY . .
RUN cargo build --release --bin omr

# NVIDIA's NCCL, which transfers tensors between GPUs. Debian has no package of it.
FROM python:3.13-slim-bookworm AS nccl
RUN pip install --no-cache-dir --no-deps --target /nccl nvidia-nccl-cu13==2.28.9

FROM debian:bookworm-slim
# Certificates are for https: the hub, a teacher, a judge.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=nccl /nccl/nvidia/nccl/lib/libnccl.so.2 /usr/local/lib/
RUN ldconfig
COPY --from=build /omr/target/release/omr /usr/local/bin/omr
COPY configs /omr/configs
WORKDIR /omr
ENTRYPOINT ["omr"]
