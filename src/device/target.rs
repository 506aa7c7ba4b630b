//! What kind of device something is for.

/// What kind of device a run is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The host's processor.
    Cpu,
    /// A card.
    Cuda,
    /// The host emulating a card.
    Emu,
}

impl Kind {
    /// Its name on the command line, in checkpoints and in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
            Kind::Emu => "emu",
        }
    }

    /// True where kernels run.
    pub fn is_gpu(self) -> bool {
        self != Kind::Cpu
    }
}

/// The device a plan is made for: what scratch and placing depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Kind of device.
    pub kind: Kind,
    /// Compute threads of the CPU; 1 elsewhere.
    pub threads: usize,
    /// Bytes a plan may take; none: as many as it wants.
    pub memory: Option<usize>,
}

impl Target {
    /// The CPU with `threads` threads.
    pub fn cpu(threads: usize) -> Target {
        Target { kind: Kind::Cpu, threads, memory: None }
    }

    /// A device of `kind` that launches kernels.
    pub fn gpu(kind: Kind) -> Target {
        Target { kind, threads: 1, memory: None }
    }

    /// The same with at most `bytes`, where it had more.
    pub fn within(self, bytes: Option<usize>) -> Target {
        Target { memory: [self.memory, bytes].into_iter().flatten().min(), ..self }
    }
}
