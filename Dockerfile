# docker build -t omr . && docker run --rm -v "$PWD/runs:/omr/runs" omr recipe configs/digits.yaml --out runs/digits
FROM rust:1.95-slim-bookworm AS build
WORKDIR /omr
COPY . .
RUN cargo build --release --bin omr

FROM debian:bookworm-slim
# Certificates are for https: the hub, a teacher, a judge.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /omr/target/release/omr /usr/local/bin/omr
COPY configs /omr/configs
WORKDIR /omr
ENTRYPOINT ["omr"]
