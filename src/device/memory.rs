//! Regions: one mapping each, handed out as a stack. Addresses never move; nothing is freed by Drop.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::device::driver::{Address, Driver};
use crate::error::{Error, Result};

/// Every allocation on the CPU starts on this boundary: a cache line, and enough for any vector load.
const ALIGN: usize = 64;

/// The same on a card, as its allocator has it.
const CARD_ALIGN: usize = 256;

/// With guard pages an allocation ends at one, so it begins on the least boundary that kernels may rely on: the
/// widest load, and what tensor maps ask for.
const GUARDED_ALIGN: usize = 16;

/// Behind a guarded tensor on the emulator: a page of the host.
pub const GUARD: usize = 4096;

/// How allocations are placed in a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placing {
    /// On multiples of these bytes.
    Aligned(usize),
    /// In pages of their own, each ending at an inaccessible page of these bytes.
    Guarded(usize),
}

impl Placing {
    /// On the CPU.
    pub const HOST: Placing = Placing::Aligned(ALIGN);

    /// On a device whose driver keeps `guard` bytes behind each tensor.
    pub fn device(guard: usize) -> Placing {
        if guard == 0 { Placing::Aligned(CARD_ALIGN) } else { Placing::Guarded(guard) }
    }

    /// Offset and end of an allocation of `bytes` in a stack whose top is `top`.
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

/// What a piece of memory is for (DESIGN section 6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Region {
    /// The model's weights.
    Weights,
    /// Optimizer state.
    State,
    /// Rollout: KV pages and the vision cache. Training: gradients and the activation stack.
    Overlay,
    /// Scratch of single ops and blocks.
    Workspace,
}

impl Region {
    /// All regions, in layout order.
    pub const ALL: [Region; 4] = [Region::Weights, Region::State, Region::Overlay, Region::Workspace];

    /// The region's name in messages.
    pub fn name(self) -> &'static str {
        ["weights", "state", "overlay", "workspace"][self as usize]
    }
}

/// Bytes per region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    bytes: [usize; 4],
}

impl Plan {
    /// A plan with `bytes` in every region: for tests and for the CPU, where untouched pages cost nothing.
    pub fn uniform(bytes: usize) -> Plan {
        Plan { bytes: [bytes; 4] }
    }

    /// Bytes of `region`.
    pub fn bytes(&self, region: Region) -> usize {
        self.bytes[region as usize]
    }

    /// The same plan with `bytes` for `region`.
    pub fn with(mut self, region: Region, bytes: usize) -> Plan {
        self.bytes[region as usize] = bytes;
        self
    }

    /// The larger of the two plans, region by region: memory that serves either job.
    pub fn max(&self, other: &Plan) -> Plan {
        let mut bytes = self.bytes;
        for (b, o) in bytes.iter_mut().zip(other.bytes) {
            *b = (*b).max(o);
        }
        Plan { bytes }
    }

    /// Sum over the regions.
    pub fn total(&self) -> usize {
        self.bytes.iter().sum()
    }
}

/// A piece of a region: byte offset and length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The region.
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
    /// Where the region lies on a device.
    base: Address,
    capacity: usize,
    top: usize,
    high: AtomicUsize,
}

/// The four stacks of a device.
pub struct Memory {
    stacks: [Stack; 4],
    placing: Placing,
}

impl Memory {
    /// Maps `plan`'s bytes, zero-filled and lazily touched. Errors when the system refuses the mapping.
    pub fn map(plan: &Plan) -> Result<Memory> {
        let stack = |region: Region| -> Result<Stack> {
            let capacity = plan.bytes(region).next_multiple_of(ALIGN).max(ALIGN);
            let map = memmap2::MmapOptions::new()
                .len(capacity)
                .no_reserve_swap()
                .map_anon()
                .map_err(|e| Error::Failed(format!("mapping {capacity} bytes of {}: {e}", region.name())))?;
            // Products walk rows that are a page apart. A system without huge pages refuses, and loses only time.
            #[cfg(target_os = "linux")]
            map.advise(memmap2::Advice::HugePage).ok();
            Ok(Stack { map: Some(map), base: 0, capacity, top: 0, high: AtomicUsize::new(0) })
        };
        let [a, b, c, d] = Region::ALL;
        Ok(Memory { stacks: [stack(a)?, stack(b)?, stack(c)?, stack(d)?], placing: Placing::HOST })
    }

    /// Stacks in a driver's memory. Errors when it has no such memory.
    pub fn on(driver: &mut dyn Driver, plan: &Plan) -> Result<Memory> {
        let placing = Placing::device(driver.guard());
        let mut stack = |region: Region| -> Result<Stack> {
            let capacity = plan.bytes(region).next_multiple_of(CARD_ALIGN).max(CARD_ALIGN);
            Ok(Stack { map: None, base: driver.map(capacity)?, capacity, top: 0, high: AtomicUsize::new(0) })
        };
        let [a, b, c, d] = Region::ALL;
        Ok(Memory { stacks: [stack(a)?, stack(b)?, stack(c)?, stack(d)?], placing })
    }

    /// Stacks without memory behind them and without a limit.
    pub fn count(placing: Placing) -> Memory {
        let stack = || Stack { map: None, base: 0, capacity: usize::MAX / 2, top: 0, high: AtomicUsize::new(0) };
        Memory { stacks: [stack(), stack(), stack(), stack()], placing }
    }

    /// Where a span lies on the device.
    pub fn address(&self, span: Span) -> Address {
        self.stacks[span.region as usize].base + span.offset as Address
    }

    /// Device address and bytes of what [`Memory::release`] of `mark` would free.
    pub fn above(&self, mark: Mark) -> (Address, usize) {
        let stack = &self.stacks[mark.region as usize];
        (stack.base + mark.top as Address, stack.top.saturating_sub(mark.top))
    }

    /// Takes `bytes` from the top of `region`. The content is whatever was there (zero when never used).
    pub fn alloc(&mut self, region: Region, bytes: usize) -> Result<Span> {
        let stack = &mut self.stacks[region as usize];
        let (offset, want) = self.placing.place(stack.top, bytes);
        if want > stack.capacity {
            return Err(Error::Memory { region: region.name(), want, have: stack.capacity });
        }
        stack.top = want;
        stack.high.fetch_max(want, Ordering::Relaxed);
        Ok(Span { region, offset, bytes })
    }

    /// The region's stack position.
    pub fn mark(&self, region: Region) -> Mark {
        Mark { region, top: self.stacks[region as usize].top }
    }

    /// Back to `mark`: what was allocated since is free.
    pub fn release(&mut self, mark: Mark) {
        let stack = &mut self.stacks[mark.region as usize];
        assert!(mark.top <= stack.top, "release of {} above its top", mark.region.name());
        stack.top = mark.top;
    }

    /// The most bytes each region ever held.
    pub fn high_water(&self) -> Plan {
        let mut plan = Plan::default();
        for region in Region::ALL {
            plan = plan.with(region, self.stacks[region as usize].high.load(Ordering::Relaxed));
        }
        plan
    }

    /// The marks begin anew at the present tops.
    pub fn reset_high_water(&mut self) {
        self.stacks.iter_mut().for_each(|stack| *stack.high.get_mut() = stack.top);
    }

    /// Views of `outs` (writable) and `ins` (readable) at once. Panics when a writable span overlaps any
    /// other span (a programmer's error), or on a device that only counts.
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
        let mut base = [std::ptr::null_mut::<u8>(); 4];
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
        // SAFETY: each span lies inside its mapping (checked), the mappings live as long as `self`, `self` is
        // borrowed mutably for the views' lifetime, and writable spans are disjoint from all others (checked).
        let outs = outs.map(|s| ViewMut { bytes: unsafe { std::slice::from_raw_parts_mut(check(&s), s.bytes) } });
        // SAFETY: as above; readable spans may overlap one another.
        let ins = ins.map(|s| View { bytes: unsafe { std::slice::from_raw_parts(check(&s), s.bytes) } });
        (outs, ins)
    }

    /// One readable span.
    pub fn view(&self, span: Span) -> View<'_> {
        let stack = &self.stacks[span.region as usize];
        let map = stack.map.as_ref().expect("only the CPU's memory has host views");
        View { bytes: &map[span.offset..span.offset + span.bytes] }
    }

    /// One writable span.
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
    /// As elements. Panics when length or alignment do not fit `T`.
    pub fn of<T: bytemuck::Pod>(self) -> &'a [T] {
        bytemuck::cast_slice(self.bytes)
    }
}

/// Writable bytes of a span.
pub struct ViewMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> ViewMut<'a> {
    /// As elements. Panics when length or alignment do not fit `T`.
    pub fn of<T: bytemuck::Pod>(self) -> &'a mut [T] {
        bytemuck::cast_slice_mut(self.bytes)
    }
}
