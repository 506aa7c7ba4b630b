//! Kinds of devices, and the target that a memory plan is made for.

/// Kind of device that a run uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The host's processor.
    Cpu,
    /// A real GPU.
    Cuda,
    /// A GPU that the host emulates.
    Emu,
}

impl Kind {
    /// Returns the name used on the command line, in checkpoints and in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
            Kind::Emu => "emu",
        }
    }

    /// Returns true if the device runs kernels.
    pub fn is_gpu(self) -> bool {
        self != Kind::Cpu
    }
}

/// The device that a memory plan is made for. Scratch sizes and the placement of tensors depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Kind of device.
    pub kind: Kind,
    /// Number of compute threads of the CPU; 1 for other kinds.
    pub threads: usize,
    /// Maximum bytes of a plan, or `None` for no limit.
    pub memory: Option<usize>,
}

impl Target {
    /// Returns the CPU with `threads` threads.
    pub fn cpu(threads: usize) -> Target {
        Target { kind: Kind::Cpu, threads, memory: None }
    }

    /// Returns a device of `kind` that launches kernels.
    pub fn gpu(kind: Kind) -> Target {
        Target { kind, threads: 1, memory: None }
    }

    /// Returns the same target with a limit of at most `bytes`. A smaller existing limit stays.
    pub fn within(self, bytes: Option<usize>) -> Target {
        Target { memory: [self.memory, bytes].into_iter().flatten().min(), ..self }
    }
}
