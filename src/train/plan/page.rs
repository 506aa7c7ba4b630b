//! A plan for one or several GPUs, formatted as text and as JSON.

use serde_json::{Value, json};

use super::floor::{self, Floor};
use super::gpus::{Ceilings, Links};
use super::layout::{self, GpuLayout};
use super::length::Run;
use super::memory;
use super::pass::Pass;
use crate::training::plan::{Planned, UpdateWork};
use omr_base::observe::bytes;
use omr_model::nn::{CheckpointPolicy, ModelConfig};
use omr_runtime::device::Region;
use omr_runtime::device::nccl::MAX_CTAS;
use omr_runtime::device::perf_model::{self, Range};
use omr_runtime::ranks::BytesExchanged;

/// Contents of a plan.
pub struct Page {
    pub(super) stage: &'static str,
    pub(super) ceilings: Ceilings,
    pub(super) links: Links,
    pub(super) layout: GpuLayout,
    pub(super) model: ModelConfig,
    /// Numbers of weights of the model and of its adapters.
    pub(super) parameters: [usize; 2],
    pub(super) assumes: String,
    pub(super) planned: Planned,
    /// Largest training pass that can occur.
    pub(super) pass: Pass,
    /// Additional lines about memory.
    pub(super) notes: Vec<(&'static str, String)>,
    /// Host memory of a process, by purpose.
    pub(super) host: Vec<(&'static str, usize)>,
    /// Parts of a step.
    pub(super) parts: Vec<(&'static str, Floor)>,
    /// Predicted seconds of each part. Empty for GPUs without predictions.
    pub(super) predicted: Vec<Range>,
    pub(super) clock: f64,
    /// Number of updates per step.
    pub(super) updates: usize,
    /// Number of micro-batches of a GPU per step.
    pub(super) passes: usize,
    /// Share of the time of the passes in which a GPU waits for others, if it is known.
    pub(super) waiting: Option<f64>,
    /// Number of tokens per row.
    pub(super) row_tokens: usize,
    /// Number of rows per step.
    pub(super) rows: usize,
    /// The whole run, if it was asked for.
    pub(super) run: Option<Run>,
    /// Numbers of tokens per step that are trained on and generated.
    pub(super) tokens: [f64; 2],
    /// Number of checkpoints that are kept, or `None` for all.
    pub(super) limit: Option<usize>,
    /// Number of steps between checkpoints.
    pub(super) interval: Option<u64>,
}

impl Page {
    /// Returns the number of checkpoints that are kept, if it is known.
    fn checkpoints(&self) -> Option<usize> {
        let all = || Some((self.run.as_ref()?.steps? / self.interval?) as usize);
        self.limit.or_else(all)
    }

    fn floor(&self) -> Floor {
        self.parts.iter().fold(Floor::default(), |sum, (_, floor)| sum.and(*floor))
    }

    /// Returns the seconds of a step in which a GPU waits for transfers: between GPUs, and with the host for offloaded
    /// state.
    pub(super) fn links_seconds(&self) -> f64 {
        let of_update = self.layout.links(self.planned.update.handed, &self.links) + self.offload_seconds();
        self.passes as f64 * self.exposed_seconds() + self.updates as f64 * of_update
    }

    /// Returns the seconds in which the gradients of a pass move.
    fn exchange_seconds(&self) -> f64 {
        self.layout.links(self.planned.pass_handed, &self.links)
    }

    /// Returns the part of [`Page::exchange_seconds`] that no backward overlaps.
    fn exposed_seconds(&self) -> f64 {
        let Planned { pass, pass_exposed, .. } = &self.planned;
        let of_pass = self.exchange_seconds();
        (pass_exposed * of_pass).max(of_pass - Floor::sum(pass, &self.ceilings).seconds)
    }

    /// Returns the predicted seconds of a step by which the exchange slows down backward, because it occupies
    /// multiprocessors.
    fn beside_seconds(&self) -> f64 {
        let hidden = self.exchange_seconds() - self.exposed_seconds();
        self.passes as f64 * hidden * (perf_model::slowdown_beside(MAX_CTAS) - 1.0)
    }

    /// Returns the seconds in which an update reads the optimizer state from the host. It writes the state at the same
    /// time.
    fn offload_seconds(&self) -> f64 {
        self.planned.memory.bytes(Region::Host) as f64 / self.links.host
    }

    /// Returns the bytes that a GPU exchanges in an update, gradients included.
    pub(super) fn handed_per_update(&self) -> BytesExchanged {
        let Planned { pass_handed: pass, update: UpdateWork { handed, .. }, .. } = &self.planned;
        let passes = (self.passes / self.updates.max(1)) as u64;
        BytesExchanged { sent: passes * pass.sent + handed.sent, received: passes * pass.received + handed.received }
    }

    /// Returns the seconds of a step at peak rates.
    pub(super) fn least(&self) -> f64 {
        self.floor().seconds + self.links_seconds()
    }

    /// Returns the predicted seconds of a step.
    pub(super) fn predicted_step(&self) -> Option<Range> {
        let links = Range::exact(self.links_seconds() + self.beside_seconds());
        (!self.predicted.is_empty()).then(|| self.predicted.iter().copied().chain([links]).sum())
    }

    /// Returns the seconds of a step: predicted if available, otherwise the floor.
    pub(super) fn step(&self) -> f64 {
        self.predicted_step().map_or(self.least(), |step| step.likely)
    }

    /// Describes the resource that limits a step, with its share of the time at peak rates.
    pub(super) fn bound(&self) -> String {
        let (floor, links) = (self.floor(), self.links_seconds());
        let memory = floor.seconds - floor.by_arithmetic;
        let parts = [("arithmetic", floor.by_arithmetic), ("memory traffic", memory), ("links", links)];
        let most = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
        format!("{}, {:.0} % of the time", most.0, 100.0 * most.1 / self.least().max(f64::MIN_POSITIVE))
    }

    /// Describes the time of one step and of `steps` steps in a line.
    pub fn time(&self, steps: u64) -> String {
        let step_and_total =
            |step: f64| format!("{} per step, {} in total", floor::seconds(step), floor::seconds(step * steps as f64));
        let predicted =
            self.predicted_step().map_or(String::new(), |step| format!("; predicted {}", step_and_total(step.likely)));
        let (gpus, least) = (layout::named(self.layout.count, &self.ceilings), step_and_total(self.least()));
        format!("time on {gpus} for {}: at least {least}{predicted}", self.assumes)
    }

    /// Returns the tokens per day, trained on and generated, if a step takes `step` seconds.
    pub(super) fn per_day(&self, step: f64) -> [f64; 2] {
        self.tokens.map(|tokens| tokens / step * 86_400.0)
    }

    /// Returns the bytes of a checkpoint, which all GPUs write together.
    fn checkpoint(&self) -> usize {
        memory::saved_weights(&self.planned.memory, self.parameters[1]) + self.layout.state
    }

    /// Formats the plan as text.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, text: &str| out.push_str(&format!("{name:<14}{text}\n"));
        let ceilings = &self.ceilings;
        line("job", &format!("{} on {}", self.stage, layout::named(self.layout.count, ceilings)));
        let [base, adapters] = self.parameters.map(|count| count as f64);
        let adapters = if adapters > 0.0 { format!(", and {} in adapters", millions(adapters)) } else { String::new() };
        line("model", &format!("{:.3} B parameters{adapters}", base / 1e9));
        line("assumes", &self.assumes);
        self.memory(&mut line);
        let predicted = |seconds: Option<Range>| {
            seconds.map_or(String::new(), |Range { low, likely, high }| {
                let [low, likely, high] = [low, likely, high].map(floor::seconds);
                format!("  predicted {likely:>10} ({low} to {high})")
            })
        };
        let all = Floor { seconds: self.least(), ..self.floor() };
        line("step", &format!("{}  (lower bound of one step){}", all.text(), predicted(self.predicted_step())));
        for (i, (name, floor)) in self.parts.iter().enumerate() {
            let predicted = predicted(self.predicted.get(i).copied());
            line(&format!("  {name}"), &format!("{}         {predicted}", floor.text()));
        }
        self.run.iter().for_each(|run| line("whole run", &run.text()));
        self.handed(&mut line);
        line("bound", &self.bound());
        let tokens = |step: f64| {
            let [trained, generated] = self.per_day(step);
            let generated =
                if generated > 0.0 { format!(", {} generated", millions(generated)) } else { String::new() };
            format!("{} for training{generated}", millions(trained))
        };
        line("tokens/day", &format!("at most {}", tokens(self.least())));
        self.predicted_step().into_iter().for_each(|step| line("  predicted", &tokens(step.likely)));
        out + &self.origin()
    }

    /// Writes the lines about memory of the GPU and the host.
    fn memory(&self, line: &mut impl FnMut(&str, &str)) {
        let Planned { memory: plan, ladder, budget, .. } = &self.planned;
        let bytes = |count: usize| bytes(count as u64);
        let budget =
            budget.map_or(String::new(), |b| format!(", of {}; it stores as many activations as fit", bytes(b)));
        let of = if self.layout.count > 1 { ", on the GPU with the largest part of the optimizer state" } else { "" };
        line("memory", &format!("{}{budget}{of}", bytes(plan.total())));
        for (region, meaning) in REGIONS {
            line(&format!("  {}", region.name()), &format!("{:>10}  {meaning}", bytes(plan.bytes(region))));
        }
        for (i, text) in memory::ladder(ladder, &self.model).iter().enumerate() {
            line(if i == 0 { "  stored" } else { "" }, text);
        }
        self.notes.iter().for_each(|(name, text)| line(&format!("  {name}"), text));
        line("disk", &memory::disk(self.checkpoint(), self.checkpoints()));
        let host = bytes(self.host.iter().map(|(_, count)| *count).sum());
        let parts: Vec<String> = self.host.iter().map(|(name, count)| format!("{name} {}", bytes(*count))).collect();
        line("host memory", &format!("{host} per process: {}", parts.join(", ")));
    }

    /// Writes the lines about the bytes that enter and leave a GPU in an update.
    fn handed(&self, line: &mut impl FnMut(&str, &str)) {
        if self.layout.lanes > 1 {
            line("lanes", &format!("{} gradient lanes", self.layout.lanes));
        }
        let BytesExchanged { sent, received } = self.handed_per_update();
        if self.layout.count > 1 {
            let (sent, received) = (bytes(sent), bytes(received));
            let seconds = floor::seconds(self.links_seconds() / self.updates.max(1) as f64);
            line("  links", &format!("{seconds:>10}  per update: {sent} sent and {received} received per GPU"));
            if let Some(waiting) = self.waiting {
                line(
                    "  waiting",
                    &format!("{:>8.1} %  of the passes, for the largest micro-batch of a round", 100.0 * waiting),
                );
            }
        }
        let state = self.planned.memory.bytes(Region::Host) as u64;
        if state > 0 {
            let (seconds, state) = (floor::seconds(self.offload_seconds()), bytes(state));
            line("  host", &format!("{seconds:>10}  per update: {state} read from and written to the host"));
        }
    }

    /// Explains the origin of the times.
    fn origin(&self) -> String {
        let (ceilings, links) = (&self.ceilings, &self.links);
        let mut out = format!(
            "Times are lower bounds, not measurements: for each op the longer of its arithmetic at {:.0} TFLOP/s and its\n\
             memory traffic at {:.2} TB/s, without pauses between ops.\n",
            ceilings.flops / 1e12,
            ceilings.bytes / 1e12
        );
        if self.predicted_step().is_some() {
            out.push_str(&format!(
                "Predicted times are not measured either. They are computed from the machine code and the launches of the run,\n\
                 at an assumed clock of {:.0} MHz; for prompts the lower bound is used. --launches FILE and then\n\
                 tools/roofline FILE show what limits each launch.\n",
                self.clock
            ));
        }
        if self.links_seconds() > 0.0 {
            out.push_str(&format!(
                "Links of a GPU, in one direction: {:.0} GB/s in a node of 8, {:.0} GB/s between nodes, {:.0} GB/s to the\n\
                 host. The gradients of decoder layers move while backward continues (dist.overlap), on multiprocessors\n\
                 that backward then lacks; no other transfer overlaps with computation. No run on two GPUs has been\n\
                 measured yet. More GPUs divide the optimizer state further, but the buffer for gradients in the overlay has\n\
                 a part of a minimum size for each GPU. A small model can need more memory on 64 GPUs than on 32.\n",
                links.node / 1e9,
                links.network / 1e9,
                links.host / 1e9
            ));
        }
        if self.layout.count > 1 && self.stage == "rl" {
            out.push_str(
                "These bytes and times do not include the rollouts, which are exchanged between hosts over TCP.\n",
            );
        }
        out
    }

    /// Formats the plan as JSON.
    pub fn json(&self) -> Value {
        let mut memory = memory::json(&self.planned.memory);
        memory["budget"] = json!(self.planned.budget);
        let parts: Value = self.parts.iter().map(|(name, floor)| (*name, floor.json())).collect();
        let CheckpointPolicy { text, vision, replay_tower } = self.planned.ladder.levels(usize::MAX);
        let tokens = |step: f64| {
            let [trained, generated] = self.per_day(step);
            json!({ "trained": trained, "generated": generated })
        };
        let seconds: Value = self.parts.iter().zip(&self.predicted).map(|((name, _), s)| (*name, s.likely)).collect();
        let predicted = self.predicted_step().map(|step| {
            json!({
                "clock_mhz": self.clock, "step_seconds": step.likely, "step_range": [step.low, step.high],
                "seconds": seconds, "tokens_a_day": tokens(step.likely),
            })
        });
        let (Planned { pass_handed, pass_exposed, update, .. }, links) = (&self.planned, self.links_seconds());
        let host: Value = self.host.iter().copied().collect();
        let mut step = self.floor().json();
        step["seconds"] = json!(self.least());
        step["bound"] = json!(self.bound());
        json!({
            "job": self.stage,
            "gpu": self.ceilings.name,
            "gpus": self.layout.count,
            "gradient_lanes": self.layout.lanes,
            "parameters": self.parameters[0],
            "adapter_parameters": self.parameters[1],
            "memory": memory,
            "host_memory": host,
            "kept": {
                "text": memory::counts(text, self.model.text.layers.len()),
                "vision": memory::counts(vision, self.model.tower_depth()),
                "replay_tower": replay_tower,
            },
            "ladder": memory::ladder_json(&self.planned.ladder, &self.model),
            "disk": self.checkpoints().map(|count| memory::on_disk(self.checkpoint(), count)),
            "update": {
                "sent": update.handed.sent, "received": update.handed.received, "state": self.layout.state,
            },
            "micro_batch": {
                "sent": pass_handed.sent, "received": pass_handed.received, "exposed": pass_exposed,
            },
            "waiting": self.waiting,
            "floor": { "step": step, "parts": parts, "links": links },
            "tokens_a_day": tokens(self.least()),
            "predicted": predicted,
            "run": self.run.as_ref().map(Run::json),
        })
    }
}

const REGIONS: [(Region, &str); 4] = [
    (Region::Weights, "model weights, padded, in bf16 unless they are quantised; every GPU has all of them"),
    (Region::State, "optimizer state, divided among the GPUs: moments, and low halves of the f32 master weights"),
    (Region::Overlay, "memory for one purpose at a time: gradients and stored activations, or in RL the KV cache"),
    (Region::Workspace, "scratch memory of single ops and blocks, such as gradients of activations"),
];

/// Formats a number of tokens in millions or billions.
pub fn millions(tokens: f64) -> String {
    if tokens >= 1e9 { format!("{:.2} B", tokens / 1e9) } else { format!("{:.1} M", tokens / 1e6) }
}
