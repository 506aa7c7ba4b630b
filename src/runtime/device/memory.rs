//! Memory regions. Each region is one mapping that is used as a stack: addresses never move, and dropping a span frees
//! nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::driver::{Address, Driver};
use omr_base::error::{Error, Result};
use omr_base::observe::bytes;

/// Alignment of every allocation on the CPU: a cache line, which is enough for any vector load.
const ALIGN: usize = 64;

/// Alignment of every allocation on a GPU, as in CUDA's own allocator.
const GPU_ALIGN: usize = 256;

/// Alignment of allocations with guard pages. Such an allocation must end at its guard page, so it starts at the
/// smallest alignment that kernels rely on: that of the widest load and of tensor maps.
const GUARDED_ALIGN: usize = 16;

/// Bytes of the guard after each tensor on the emulator: one page of the host.
pub const GUARD: usize = 4096;

/// Placement of allocations in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// Each allocation starts at a multiple of this many bytes.
    Aligned(usize),
    /// Each allocation has its own pages and ends at an inaccessible page of this many bytes.
    Guarded(usize),
}

impl Placing {
    /// Placement on the CPU.
    pub const HOST: Placing = Placing::Aligned(ALIGN);

    /// Returns the placement on a device whose driver keeps `guard` bytes after each tensor.
    pub fn device(guard: usize) -> Placing {
        if guard == 0 { Placing::Aligned(GPU_ALIGN) } else { Placing::Guarded(guard) }
    }

    /// Returns the offset of an allocation of `bytes` in a stack whose top is `top`, and the new top.
    fn place(self, top: usize, bytes: usize) -> (usize, usize) {
        match self {
            Placing::Aligned(align) => (top, top.saturating_add(bytes).saturating_add(align - 1) / align * align),
            Placing::Guarded(page) => {
                let bytes = bytes.saturating_add(GUARDED_ALIGN - 1) / GUARDED_ALIGN * GUARDED_ALIGN;
                let body = bytes.saturating_add(page - 1) / page * page;
                let end = top.saturating_add(body);
                (end - bytes, end.saturating_add(page))
            }
        }
    }
}

/// Purpose of a part of memory (`docs/dev/design/runtime.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Region {
    /// Weights of the model.
    Weights,
    /// Optimizer state.
    State,
    /// During rollout: KV pages and the vision cache. During training: gradients and the activation stack.
    Overlay,
    /// Scratch memory of single ops and blocks.
    Workspace,
    /// Page-locked memory of a GPU's host, which kernels read and write through PCIe: the offloaded optimizer state. Not
    /// used on the CPU.
    Host,
}

impl Region {
    /// Every region, in layout order.
    pub const ALL: [Region; 5] = [Region::Weights, Region::State, Region::Overlay, Region::Workspace, Region::Host];

    /// Returns the region's name for messages.
    pub fn name(self) -> &'static str {
        ["weights", "state", "overlay", "workspace", "host"][self as usize]
    }
}

/// Bytes per region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    bytes: [usize; Region::ALL.len()],
}

impl Plan {
    /// Creates a plan with `bytes` in every region except [`Region::Host`]. It is for tests and for the CPU, where
    /// untouched pages cost nothing.
    pub fn uniform(bytes: usize) -> Plan {
        Plan { bytes: [bytes; Region::ALL.len()] }.with(Region::Host, 0)
    }

    /// Returns the number of bytes of `region`.
    pub fn bytes(&self, region: Region) -> usize {
        self.bytes[region as usize]
    }

    /// Returns the same plan with `bytes` for `region`.
    pub fn with(mut self, region: Region, bytes: usize) -> Plan {
        self.bytes[region as usize] = bytes;
        self
    }

    /// Returns the larger of the two plans, region by region. This memory is sufficient for either job.
    pub fn max(&self, other: &Plan) -> Plan {
        let mut bytes = self.bytes;
        for (b, o) in bytes.iter_mut().zip(other.bytes) {
            *b = (*b).max(o);
        }
        Plan { bytes }
    }

    /// Returns the bytes on the device: the sum over all regions except [`Region::Host`].
    pub fn total(&self) -> usize {
        self.bytes.iter().sum::<usize>() - self.bytes(Region::Host)
    }

    /// Errors if the plan exceeds `budget`. The error states the sizes of the regions and suggests to lower the settings
    /// named in `lower`.
    pub fn within(&self, budget: Option<usize>, lower: &str) -> Result<()> {
        let Some(budget) = budget.filter(|&budget| self.total() > budget) else { return Ok(()) };
        let [total, parts] = self.words();
        let found = format!("a run that needs at least {total} ({parts})");
        let fixed = self.bytes(Region::Weights) + self.bytes(Region::State);
        let hint = match fixed > budget {
            true => format!("weights and state alone are too large: use a smaller model or lora, or lower {lower}"),
            false => format!("lower {lower}"),
        };
        Err(Error::input_hint("memory", found, format!("at most {}", bytes(budget as u64)), hint))
    }

    /// Formats the plan as `memory 1.2 GiB (weights 0.3 GiB, ...)`.
    pub fn line(&self) -> String {
        let [total, parts] = self.words();
        format!("memory {total} ({parts})")
    }

    /// Formats the total bytes, and the bytes of each region.
    fn words(&self) -> [String; 2] {
        let part = |region: Region| format!("{} {}", region.name(), bytes(self.bytes(region) as u64));
        let parts: Vec<String> = Region::ALL.into_iter().filter(|region| *region != Region::Host).map(part).collect();
        let host = match self.bytes(Region::Host) {
            0 => String::new(),
            state => format!("; {} more on the host", bytes(state as u64)),
        };
        [bytes(self.total() as u64), parts.join(", ") + &host]
    }
}

/// A part of a region: byte offset and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// Region that contains the span.
    pub region: Region,
    /// First byte inside the region; a multiple of the element size.
    pub offset: usize,
    /// Length in bytes.
    pub bytes: usize,
}

/// A stack position of one region.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    region: Region,
    top: usize,
}

struct Stack {
    map: Option<memmap2::MmapMut>,
    /// Address of the region on a device.
    base: Address,
    capacity: usize,
    top: usize,
    high: AtomicUsize,
    /// End of the bytes that were ever allocated. On the CPU, later bytes are zero and no page of them exists.
    touched: usize,
}

impl Stack {
    fn new(map: Option<memmap2::MmapMut>, base: Address, capacity: usize) -> Stack {
        Stack { map, base, capacity, top: 0, high: AtomicUsize::new(0), touched: 0 }
    }
}

/// The stacks of a device.
pub struct Memory {
    stacks: [Stack; Region::ALL.len()],
    placing: Placing,
}

impl Memory {
    /// Maps `plan`'s bytes, zero-filled and lazily touched. Errors if the system refuses the mapping.
    pub fn map(plan: &Plan) -> Result<Memory> {
        let stack = |region: Region| -> Result<Stack> {
            let capacity = plan.bytes(region).next_multiple_of(ALIGN).max(ALIGN);
            let map = memmap2::MmapOptions::new()
                .len(capacity)
                .no_reserve_swap()
                .map_anon()
                .map_err(|e| Error::Failed(format!("mapping {capacity} bytes of {}: {e}", region.name())))?;
            // Matrix products read rows that are a page apart, so huge pages help. If the system refuses them, only
            // time is lost.
            #[cfg(target_os = "linux")]
            map.advise(memmap2::Advice::HugePage).ok();
            Ok(Stack::new(Some(map), 0, capacity))
        };
        let [a, b, c, d, e] = Region::ALL;
        Ok(Memory { stacks: [stack(a)?, stack(b)?, stack(c)?, stack(d)?, stack(e)?], placing: Placing::HOST })
    }

    /// Creates the stacks in a driver's memory. Errors if the driver does not have that much memory.
    pub fn on(driver: &mut dyn Driver, plan: &Plan) -> Result<Memory> {
        let placing = Placing::device(driver.guard());
        let mut stack = |region: Region| -> Result<Stack> {
            let capacity = plan.bytes(region).next_multiple_of(GPU_ALIGN).max(GPU_ALIGN);
            let base = match (region, plan.bytes(region)) {
                (Region::Host, 0) => 0,
                (Region::Host, _) => driver.map_host(capacity)?,
                _ => driver.map(capacity)?,
            };
            Ok(Stack::new(None, base, capacity))
        };
        let [a, b, c, d, e] = Region::ALL;
        Ok(Memory { stacks: [stack(a)?, stack(b)?, stack(c)?, stack(d)?, stack(e)?], placing })
    }

    /// Creates stacks that have no memory and no limit.
    pub fn count(placing: Placing) -> Memory {
        Memory { stacks: Region::ALL.map(|_| Stack::new(None, 0, usize::MAX / 2)), placing }
    }

    /// Returns the address of a span on the device.
    pub fn address(&self, span: Span) -> Address {
        self.stacks[span.region as usize].base + span.offset as Address
    }

    /// Returns the device address and bytes that [`Memory::release`] of `mark` would free.
    pub fn above(&self, mark: Mark) -> (Address, usize) {
        let stack = &self.stacks[mark.region as usize];
        (stack.base + mark.top as Address, stack.top.saturating_sub(mark.top))
    }

    /// Allocates `bytes` on top of `region`'s stack. The memory keeps its previous content (zero if it was never used).
    pub fn alloc(&mut self, region: Region, bytes: usize) -> Result<Span> {
        let stack = &mut self.stacks[region as usize];
        let (offset, want) = self.placing.place(stack.top, bytes);
        if want > stack.capacity {
            return Err(Error::Memory { region: region.name(), want, have: stack.capacity });
        }
        stack.top = want;
        stack.touched = stack.touched.max(want);
        stack.high.fetch_max(want, Ordering::Relaxed);
        Ok(Span { region, offset, bytes })
    }

    /// Returns the end of the region's bytes that were ever allocated.
    pub fn touched(&self, region: Region) -> usize {
        self.stacks[region as usize].touched
    }

    /// Returns the current stack position of the region.
    pub fn mark(&self, region: Region) -> Mark {
        Mark { region, top: self.stacks[region as usize].top }
    }

    /// Frees everything that was allocated since `mark`.
    pub fn release(&mut self, mark: Mark) {
        let stack = &mut self.stacks[mark.region as usize];
        assert!(mark.top <= stack.top, "release of {} above its top", mark.region.name());
        stack.top = mark.top;
    }

    /// Returns the highest number of bytes that each region has held.
    pub fn high_water(&self) -> Plan {
        let mut plan = Plan::default();
        for region in Region::ALL {
            plan = plan.with(region, self.stacks[region as usize].high.load(Ordering::Relaxed));
        }
        plan
    }

    /// Resets the high-water marks to the current tops.
    pub fn reset_high_water(&mut self) {
        self.stacks.iter_mut().for_each(|stack| *stack.high.get_mut() = stack.top);
    }

    /// Returns views of `outs` (writable) and `ins` (readable) at once. Panics if a writable span overlaps any other
    /// span (a programming error), or on a device without host memory.
    pub fn views<const O: usize, const I: usize>(
        &mut self,
        outs: [Span; O],
        ins: [Span; I],
    ) -> ([ViewMut<'_>; O], [View<'_>; I]) {
        for (i, out) in outs.iter().enumerate() {
            let others = outs[..i].iter().chain(&ins);
            for other in others {
                let apart = out.region != other.region
                    || out.bytes == 0
                    || other.bytes == 0
                    || out.offset + out.bytes <= other.offset
                    || other.offset + other.bytes <= out.offset;
                assert!(apart, "writable {out:?} overlaps {other:?}");
            }
        }
        let mut base = [std::ptr::null_mut::<u8>(); Region::ALL.len()];
        for region in Region::ALL {
            let stack = &mut self.stacks[region as usize];
            let map = stack.map.as_mut().expect("only the CPU's memory has host views");
            base[region as usize] = map.as_mut_ptr();
        }
        let check = |s: &Span| {
            let capacity = self.stacks[s.region as usize].capacity;
            assert!(
                s.offset.checked_add(s.bytes).is_some_and(|end| end <= capacity),
                "{s:?} outside its region of {capacity} bytes"
            );
            base[s.region as usize].wrapping_add(s.offset)
        };
        // SAFETY: each span is inside its mapping (checked), the mappings live as long as `self`, `self` is borrowed
        // mutably for the views' lifetime, and writable spans are disjoint from all others (checked).
        let outs = outs.map(|s| ViewMut { bytes: unsafe { std::slice::from_raw_parts_mut(check(&s), s.bytes) } });
        // SAFETY: the same conditions hold; readable spans may overlap one another.
        let ins = ins.map(|s| View { bytes: unsafe { std::slice::from_raw_parts(check(&s), s.bytes) } });
        (outs, ins)
    }

    /// Returns a view of one readable span.
    pub fn view(&self, span: Span) -> View<'_> {
        let stack = &self.stacks[span.region as usize];
        let map = stack.map.as_ref().expect("only the CPU's memory has host views");
        View { bytes: &map[span.offset..span.offset + span.bytes] }
    }

    /// Returns a view of one writable span.
    pub fn view_mut(&mut self, span: Span) -> ViewMut<'_> {
        let stack = &mut self.stacks[span.region as usize];
        let map = stack.map.as_mut().expect("only the CPU's memory has host views");
        ViewMut { bytes: &mut map[span.offset..span.offset + span.bytes] }
    }
}

/// Readable bytes of a span.
#[derive(Clone, Copy)]
pub struct View<'a> {
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    /// Returns the bytes as elements. Panics if length or alignment do not fit `T`.
    pub fn of<T: bytemuck::Pod>(self) -> &'a [T] {
        bytemuck::cast_slice(self.bytes)
    }
}

/// Writable bytes of a span.
pub struct ViewMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// Returns the bytes as elements. Panics if length or alignment do not fit `T`.
    pub fn of<T: bytemuck::Pod>(self) -> &'a mut [T] {
        bytemuck::cast_slice_mut(self.bytes)
    }
}
