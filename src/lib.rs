//! omr trains vision-language reasoning models: one program distils, verifies, fine-tunes, reinforces, evaluates and
//! serves. Its CUDA kernels are its own, and an emulator runs them without a GPU.
//!
//! This table lists the modules, the folders and files directly under `src/`, from the lowest to the highest. A module
//! uses only those above it in the table, and `tests/layering.rs` checks that. `docs/dev/design.md` explains the
//! design.
//!
//! | module | purpose |
//! | --- | --- |
//! | **Base** | |
//! | [`error`] | Defines the only error type; every error states its place, what was found and what was expected. |
//! | [`choice`](mod@choice) | Defines values that are chosen from a closed set of names. |
//! | [`math`] | Computes elementary functions whose results are bitwise identical on every device. |
//! | [`philox`] | Generates random numbers from a seed, a purpose and a counter, without state. |
//! | [`files`] | Writes files and folders atomically, reads regular files safely, and locks run folders. |
//! | [`bounds`] | Limits the memory that untrusted input may use, and turns panics of libraries into errors. |
//! | [`secrets`] | Removes keys and passwords from all output. |
//! | [`observe`] | Defines the interface through which a long job reports progress and receives a request to stop. |
//! | [`config`] | Parses YAML files and command-line overrides into typed, validated, immutable settings. |
//! | [`client`] | Sends requests to OpenAI-compatible servers: teachers, judges and models to measure. |
//! | [`answers`] | Stores the replies of teachers, judges and measured models in one SQLite file per run. |
//! | [`hub`] | Lists, downloads and uploads repositories of the Hugging Face hub, and finds local copies and the base of an adapter. |
//! | [`identity`] | Hashes everything that a result depends on, and writes the `MANIFEST` of finished folders. |
//! | **GPU** | |
//! | [`device`] | Provides memory regions, threads, CPU instruction sets, GPU drivers and the GPU emulator. |
//! | [`machine`] | Describes the resources of a job: a device, threads, the asynchronous runtime and an observer. |
//! | [`tensor`] | Defines element types, shapes, and tensors as handles to a device's memory. |
//! | [`ranks`] | Connects the processes of a distributed run and assigns each a shard of the optimizer's state. |
//! | [`ops`] | Implements each family of ops in one file or folder, with forward and backward side by side. |
//! | **Data** | |
//! | [`text`] | Contains the tokenizer and the chat template. |
//! | [`image`] | Decodes and resizes images exactly as Pillow or torchvision does, and computes their grid of patches. |
//! | [`reward`] | Scores a response with the rules of the crate `omr_verify`, a judge model or an external process. |
//! | [`data`] | Reads and writes rows, and converts them to samples and packed batches. |
//! | [`task`] | Converts the rows of a benchmark to prompts and scores, for RL and evaluation alike. |
//! | **Model** | |
//! | [`model`] | Implements Qwen2.5-VL, Llama, Qwen2 and Qwen3: config, weights, vision tower, decoder, and the tape for backward. |
//! | [`optim`] | Implements AdamW and learning-rate schedules. |
//! | [`checkpoint`] | Saves and restores the state of a run atomically. |
//! | **Engine** | |
//! | [`engine`] | Generates tokens with continuous batching over a paged KV cache, as vLLM does. |
//! | [`llm`] | Answers prompts with a model directory and the engine, from rows to texts; reads files of questions. |
//! | [`rollout`] | Sends prompts to the engine, scores each response and stores the rollouts of a step. |
//! | **Training** | |
//! | [`train`] | Implements the training step and the SFT loop. |
//! | [`rl`] | Implements advantages, the policy update and the RL loop. |
//! | **Measuring** | |
//! | [`eval`] | Measures models on benchmarks, computes log-probs of given responses, and merges adapters. |
//! | [`replay`] | Computes recorded steps again and compares the results with the record. |
//! | [`report`] | Builds the HTML reports of runs and data, and the common frame of all pages. |
//! | **Jobs** | |
//! | [`pipeline`] | Runs the data stages that convert rows to rows: format, distill, verify, filter, mix and others. |
//! | [`recipe`] | Runs data, SFT, RL, evaluation and report as the resumable stages of one command. |
//! | [`plan`] | Predicts the memory, the time and the bottleneck of a config on a GPU. |
//! | **Server** | |
//! | [`serve`] | Answers requests of OpenAI's API over HTTP, the questions of `omr generate`, and serves a web page. |
//! | **Benchmarks and commands** | |
//! | [`bench`](mod@bench) | Measures ops and jobs and compares them with the limits of the machine or a prediction. |
//! | [`cli`] | Contains one file per command of the command line. |

// The tensor runtime is a crate of its own (`runtime.rs`), so that its kernels are optimised more than everything else.
pub use omr_runtime::{bounds, choice, device, error, files, math, observe, ops, philox, tensor};

pub mod answers;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod config;
pub mod data;
pub mod engine;
pub mod eval;
pub mod hub;
pub mod identity;
pub mod image;
pub mod llm;
pub mod machine;
pub mod model;
pub mod optim;
pub mod pipeline;
pub mod plan;
pub mod ranks;
pub mod recipe;
pub mod replay;
pub mod report;
pub mod reward;
pub mod rl;
pub mod rollout;
pub mod secrets;
pub mod serve;
pub mod task;
pub mod text;
pub mod train;
