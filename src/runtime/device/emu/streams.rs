//! Schedules of queued work that make a missing wait visible.

use crate::device::driver::{Graph, Stream};
use crate::device::emu::graph::{Op, Queues, Ticket, order};
use crate::device::emu::machine::{Machine, random};
use crate::device::emu::options::{Completion, Options};
use omr_base::error::{Error, Result};

/// The streams, the graphs that they replay, and the device below them.
pub struct Streams {
    /// Device that executes the work.
    pub machine: Machine,
    /// Queue of each stream.
    pub queues: Queues,
    /// Captured work by graph: the operations of each stream in order, including the waits between streams.
    graphs: Vec<Option<Vec<(Stream, Op)>>>,
    completion: Completion,
    seed: u64,
    draws: u64,
    failed: Option<String>,
    polls: u32,
}

/// Number of polls after which a stream's work runs.
const PATIENCE: u32 = 100;

impl Streams {
    /// Creates the compute stream and no other stream.
    pub fn new(machine: Machine, options: &Options) -> Streams {
        let mut queues = Queues::default();
        queues.add();
        let (completion, seed) = (options.completion, options.seed);
        Streams { machine, queues, graphs: Vec::new(), completion, seed, draws: 0, failed: None, polls: 0 }
    }

    /// Errors if an earlier operation failed. An error is permanent, as on a real GPU, because later results are
    /// meaningless.
    pub fn healthy(&self) -> Result<()> {
        self.failed.as_ref().map_or(Ok(()), |text| Err(Error::Failed(text.clone())))
    }

    /// Errors as [`Streams::healthy`] does, or if there is no such stream.
    pub fn known(&self, stream: Stream) -> Result<()> {
        self.healthy()?;
        let unknown = || Err(Error::Failed(format!("stream {} was never created", stream.0)));
        if self.queues.has(stream) { Ok(()) } else { unknown() }
    }

    /// Stores captured work for replays.
    pub fn keep(&mut self, captured: Vec<(Stream, Op)>) -> Graph {
        self.graphs.push(Some(captured));
        Graph(self.graphs.len() as u32 - 1)
    }

    /// Returns a graph that was captured and not dropped.
    pub fn captured(&self, graph: Graph) -> Result<&Vec<(Stream, Op)>> {
        let missing_error = || Error::Failed(format!("graph {} was never captured, or is already dropped", graph.0));
        self.graphs.get(graph.0 as usize).and_then(Option::as_ref).ok_or_else(missing_error)
    }

    /// Drops a graph, after all queued replays have run.
    pub fn forget(&mut self, graph: Graph) {
        for stream in self.queues.streams() {
            // An error is stored, and the next call reports it.
            let _ = self.drain(stream, None);
        }
        if let Some(captured) = self.graphs.get_mut(graph.0 as usize) {
            *captured = None;
        }
    }

    /// Queues work. Depending on the schedule, this may run some of the queued work of any stream.
    pub fn push(&mut self, stream: Stream, op: Op) -> Result<()> {
        self.queues.push(stream, op);
        match self.completion {
            Completion::Eager => self.drain(stream, None),
            Completion::Lazy => Ok(()),
            Completion::Random => {
                while self.draw(4) == 0 && self.step_any()? {}
                Ok(())
            }
        }
    }

    /// Returns true if `stream` has run all its work. In a random schedule, some work of any stream may run first. In a
    /// lazy one, the work runs at last if the host only polls.
    pub fn is_idle(&mut self, stream: Stream) -> Result<bool> {
        self.polls += 1;
        if self.polls.is_multiple_of(PATIENCE) {
            self.drain(stream, None)?;
        }
        while self.completion == Completion::Random && self.draw(4) == 0 && self.step_any()? {}
        Ok(self.queues.is_empty(stream))
    }

    fn draw(&mut self, below: usize) -> usize {
        self.draws += 1;
        (random(self.seed ^ 0x5374_7265_616D, self.draws) % below as u64) as usize
    }

    /// Runs the next work of a random stream that is ready. Returns false if no stream is ready.
    fn step_any(&mut self) -> Result<bool> {
        let ready = self.queues.ready();
        if ready.is_empty() {
            return Ok(false);
        }
        let stream = ready[self.draw(ready.len())];
        self.step(stream).map(|()| true)
    }

    fn step(&mut self, stream: Stream) -> Result<()> {
        let result = match self.queues.pop(stream) {
            Some(Op::Replay(graph)) => self.run_graph(graph),
            Some(op) => self.machine.execute(&op),
            None => Ok(()),
        };
        if let Err(error) = &result {
            self.failed = Some(error.to_string());
            self.queues.clear();
        }
        result
    }

    /// Runs `stream` until it is empty, or until `ticket` is recorded. The schedule determines what other streams run
    /// meanwhile, so that a missing wait becomes visible:
    ///
    /// - lazy with a seed: all work that can run;
    /// - random: a random part of the work that can run;
    /// - otherwise: only the work that `stream` waits for.
    pub fn drain(&mut self, stream: Stream, ticket: Option<Ticket>) -> Result<()> {
        loop {
            let done = ticket.map_or(self.queues.is_empty(stream), |ticket| !self.queues.is_pending(ticket));
            if done {
                return Ok(());
            }
            if self.completion == Completion::Random {
                self.step_any()?;
                continue;
            }
            if self.completion == Completion::Lazy && self.seed != 0 {
                let other = self.queues.ready().into_iter().find(|s| *s != stream);
                self.step(other.unwrap_or(stream))?;
                continue;
            }
            match self.queues.blocked_on(stream) {
                None => self.step(stream)?,
                Some(awaited) => {
                    let nobody = || format!("stream {} waits for an event that no stream records", stream.0);
                    let other = self.queues.recorder(awaited).ok_or_else(|| Error::Failed(nobody()))?;
                    self.drain(other, Some(awaited))?;
                }
            }
        }
    }

    fn run_graph(&mut self, graph: Graph) -> Result<()> {
        let (seed, draws) = (self.seed ^ 0x0047_7261_7068, self.draws);
        self.draws += 1;
        let completion = self.completion;
        let mut step = 0;
        // This cannot fail: queued replays run before a graph is dropped.
        let Some(captured) = &self.graphs[graph.0 as usize] else { return Ok(()) };
        let order = order(captured, |ready| match completion {
            Completion::Eager => 0,
            // Streams that joined last run before the first stream.
            Completion::Lazy => ready - 1,
            Completion::Random => {
                step += 1;
                (random(random(seed, draws), step) % ready as u64) as usize
            }
        });
        order.iter().try_for_each(|op| self.machine.execute(op))
    }
}
