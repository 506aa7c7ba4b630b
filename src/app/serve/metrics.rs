//! Metrics in Prometheus' text format, with vLLM's names after the prefix `omr:`.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use omr_model::engine::Engine;
use omr_model::engine::scheduler::SchedulerStats;

/// Upper bounds of the histograms in seconds, as in vLLM.
const SECONDS: [f64; 20] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
];

/// Declares the metrics of the server, each with its type, initial value, exported name and help.
macro_rules! metrics {
    ($($field:ident: $kind:ty = $new:expr, $name:literal, $help:literal;)+) => {
        /// Metrics of the server.
        pub struct Metrics {
            registry: Registry,
            /// The engine's counts when they were last added.
            seen: Mutex<SchedulerStats>,
            $( #[doc = $help] pub $field: $kind, )+
        }

        impl Metrics {
            /// Creates metrics without observations.
            pub fn new() -> Metrics {
                let mut registry = Registry::default();
                $(
                    let $field: $kind = $new;
                    registry.register(concat!("omr:", $name), $help, $field.clone());
                )+
                Metrics { registry, seen: Mutex::default(), $($field),+ }
            }
        }
    };
}

metrics! {
    num_requests_running: Gauge = Gauge::default(), "num_requests_running", "Choices that are being computed";
    num_requests_waiting: Gauge = Gauge::default(), "num_requests_waiting", "Requests that wait";
    kv_cache_usage: Gauge<f64, AtomicU64> = Gauge::default(), "kv_cache_usage_perc",
        "Share of the KV cache blocks in use; 1 means all";
    prefix_cache_queries: Counter = Counter::default(), "prefix_cache_queries",
        "Prompt tokens that were looked up in the prefix cache";
    prefix_cache_hits: Counter = Counter::default(), "prefix_cache_hits", "Tokens that the prefix cache supplied";
    num_preemptions: Counter = Counter::default(), "num_preemptions", "Preemptions";
    success: Family<[(&'static str, &'static str); 1], Counter> = Family::default(), "request_success",
        "Choices that have ended, by finish reason";
    prompt_tokens: Counter = Counter::default(), "prompt_tokens", "Prompt tokens";
    generation_tokens: Counter = Counter::default(), "generation_tokens", "Sampled tokens";
    time_to_first_token: Histogram = Histogram::new(SECONDS), "time_to_first_token_seconds", "Time to the first token";
    inter_token_latency: Histogram = Histogram::new(SECONDS), "inter_token_latency_seconds", "Time between tokens";
    e2e_request_latency: Histogram = Histogram::new(SECONDS), "e2e_request_latency_seconds", "Time of a request";
}

impl Metrics {
    /// Records the load of the engine. `held` is the number of requests that wait outside of it.
    pub fn set_load(&self, engine: &Engine, held: usize) {
        let (load, stats) = (engine.load(), engine.stats());
        self.num_requests_running.set(load.num_running as i64);
        self.num_requests_waiting.set((load.num_waiting + held) as i64);
        self.kv_cache_usage.set(load.num_used_blocks as f64 / load.num_blocks.max(1) as f64);
        let seen = std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), stats);
        self.prefix_cache_hits.inc_by(stats.cached_tokens - seen.cached_tokens);
        self.prefix_cache_queries.inc_by(stats.looked_up_tokens - seen.looked_up_tokens);
        self.num_preemptions.inc_by(stats.preemptions - seen.preemptions);
    }

    /// Counts a choice that has ended.
    pub fn count_end(&self, finish_reason: &'static str) {
        self.success.get_or_create(&[("finished_reason", finish_reason)]).inc();
    }

    /// Returns the metrics as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
