//! omr: hand-written CUDA kernels, an emulator that runs them without a card, and on them one program from raw data to a
//! measured reasoning model. This is the map of its rooms; `docs/DESIGN.md` says how it is built.
//!
//! | room | what it holds |
//! | --- | --- |
//! | [`error`] | one error type, every variant with its context |
//! | [`math`], [`philox`] | elementary functions of equal bits everywhere; random numbers by what they are for |
//! | [`files`] | writes that are whole or not there |
//! | [`secrets`] | words that no output may show |
//! | [`bounds`] | bytes in work over all threads, panics of libraries as errors |
//! | [`observe`] | what long work tells whoever watches it |
//! | [`config`] | YAML and overrides to typed, validated, immutable settings |
//! | [`identity`] | what a result depends on, by content; the `MANIFEST` of what was written |
//! | [`client`] | the client of OpenAI-compatible servers: teachers, judges, models to be measured |
//! | [`answers`] | the answers of teachers, judges and measured models, kept by content |
//! | [`hub`] | models and data sets of the Hugging Face hub: names, listings, downloads, what is there already |
//! | [`device`] | where memory and compute live: regions, plan, threads, instruction sets |
//! | [`machine`] | what a job needs of the machine it runs on: a device, threads, the runtime, an observer |
//! | [`tensor`] | element types, shapes, handles into a device's memory |
//! | [`ranks`] | ranks: collectives, and who owns which part of the optimizer's state |
//! | [`ops`] | one file per op family, forward and backward side by side; rounding points |
//! | [`model`] | Qwen2.5-VL: config, weights and their layout, vision tower, decoder, positions, tape |
//! | [`text`], [`image`] | tokenizer and chat template; decode, smart resize, Pillow-exact resize, patches |
//! | [`page`] | the frame of every HTML page |
//! | [`reward`] | the judge, the reward process, the score of a response; `omr_verify` finds and compares answers |
//! | [`task`] | rows to prompts and scores; the same object serves RL and evaluation |
//! | [`data`] | rows in and out, distillation, packing |
//! | [`optim`], [`checkpoint`] | AdamW and schedules; whole-or-nothing state |
//! | [`engine`] | sequences, block manager, scheduler, model runner, sampler over a paged KV cache |
//! | [`rollout`] | prompts to scored rollouts, for RL and evaluation alike; the file of a step's rollouts |
//! | [`train`], [`rl`] | the SFT loop; advantages, policy losses, the RL loop |
//! | [`eval`], [`report`] | benchmarks; the HTML report |
//! | [`replay`] | steps computed again and held against what the run kept of them |
//! | [`generate`] | text generation: questions to prompts, answers streamed or in a file |
//! | [`pipeline`] | stages from rows to rows: format, verify, filter, mix |
//! | [`recipe`] | data, SFT, RL, control, evaluation and report in one: stages and resume |
//! | [`plan`] | what a config takes on a GPU: memory, time, what binds |
//! | [`bench`](mod@bench) | how long ops and jobs take beside the ceilings of this machine, or beside a prediction |
//! | [`cli`] | one file per command |

pub mod answers;
pub mod bench;
pub mod bounds;
pub mod checkpoint;
pub mod cli;
pub mod client;
pub mod config;
pub mod data;
pub mod device;
pub mod engine;
pub mod error;
pub mod eval;
pub mod files;
pub mod generate;
pub mod hub;
pub mod identity;
pub mod image;
pub mod machine;
pub mod math;
pub mod model;
pub mod observe;
pub mod ops;
pub mod optim;
pub mod page;
pub mod philox;
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
pub mod task;
pub mod tensor;
pub mod text;
pub mod train;
