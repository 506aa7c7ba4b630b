//! Times of a case on a GPU: the milliseconds of each repetition between two events, the time in which the host queued
//! it, and the clock of the multiprocessors between a stamp before the first repetition and one after the last.

use std::time::Instant;

use serde_json::Value;

use super::case::{Case, Make, Times};
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Driver, Event, Kind, Plan, Region, Stream};
use omr_runtime::machine::Machine;
use omr_runtime::ops::stamp;
use omr_runtime::tensor::{DType, Tensor};

/// Bytes written between two repetitions, more than any L2 holds.
const FLUSH: usize = 256 << 20;
/// Bytes of GPU memory that a measurement needs beside its case, at most.
pub const RESERVED: usize = FLUSH + (1 << 20);
/// Number of repetitions at the beginning and at the end whose times are listed.
const LISTED: usize = 20;
/// Number of repetitions that are queued before the first of them is waited for, if there is no pause between them.
const AHEAD: usize = 8;

/// A case that is warmed up, on a device of its own.
pub struct Warm {
    pub dev: Device,
    pub case: Case,
    flush: Tensor,
    stamps: [Tensor; 2],
    events: Vec<[Event; 2]>,
}

/// Allocates the memory that is written between repetitions, and two stamps.
pub fn reserve(dev: &mut Device) -> Result<(Tensor, [Tensor; 2])> {
    let flush = if dev.kind() == Kind::Cuda { FLUSH } else { 64 };
    let mut bytes = |count| dev.alloc(Region::State, DType::U8, &[count]);
    Ok((bytes(flush)?, [bytes(stamp::BYTES)?, bytes(stamp::BYTES)?]))
}

fn driver(dev: &mut Device) -> Result<&mut dyn Driver> {
    dev.driver().ok_or_else(|| Error::Failed("omr bench: the device is not a GPU".into()))
}

impl Warm {
    /// Makes a case on a device with `plan`'s memory, and runs it once.
    pub fn new(make: &Make, plan: &Plan, machine: &Machine) -> Result<Warm> {
        let mut dev = (machine.device)(plan)?;
        let mut case = make(&mut dev)?;
        let (flush, stamps) = reserve(&mut dev)?;
        (case.run)(&mut dev)?;
        let driver = driver(&mut dev)?;
        driver.synchronize(Stream::COMPUTE)?;
        let events = (0..AHEAD).map(|_| Ok([driver.event()?, driver.event()?])).collect::<Result<_>>()?;
        Ok(Warm { dev, case, flush, stamps, events })
    }

    /// Measures at least `least` repetitions for at least `seconds`; on the emulator always two. If `cold` is true, the L2
    /// is flushed before each repetition, and the host waits for it. Otherwise there is no pause between repetitions. Adds
    /// to `row` the median under the key `median`, the shortest and the longest time, the first and the last times, the
    /// median time in which the host queues a repetition (with its waits, if a repetition reads results), and the clock.
    pub fn measure(&mut self, row: &mut Value, median: &str, cold: bool, least: usize, seconds: f64) -> Result<()> {
        let Warm { dev, case, flush, stamps, events } = self;
        let (on_gpu, ahead) = (dev.kind() == Kind::Cuda, if cold { 1 } else { AHEAD });
        let (mut ms, mut host_ms) = (Vec::new(), Vec::new());
        driver(dev)?.profiler(on_gpu)?;
        stamp::write(dev, stamps[0])?;
        let begun = Instant::now();
        loop {
            let queued = host_ms.len();
            let is_over =
                if on_gpu { queued >= least && begun.elapsed().as_secs_f64() >= seconds } else { queued == 2 };
            while ms.len() < queued && (is_over || queued - ms.len() == ahead) {
                let [before, after] = events[ms.len() % AHEAD];
                ms.push(f64::from(driver(dev)?.elapsed_ms(before, after)?));
            }
            if is_over {
                break;
            }
            if cold {
                // The launches are queued while the GPU still flushes the L2, so the time of the host does not count.
                dev.fill_zero(*flush)?;
            }
            let [before, after] = events[queued % AHEAD];
            driver(dev)?.record(before, Stream::COMPUTE)?;
            let called = Instant::now();
            (case.run)(dev)?;
            host_ms.push(1e3 * called.elapsed().as_secs_f64());
            driver(dev)?.record(after, Stream::COMPUTE)?;
        }
        stamp::write(dev, stamps[1])?;
        driver(dev)?.profiler(false)?;
        let (clock, listed) = (stamp::mhz(dev, *stamps)?, ms.len().min(LISTED));
        row["first_ms"] = ms[..listed].into();
        row["last_ms"] = ms[ms.len() - listed..].into();
        let times = Times::of(ms, 0.0);
        for (key, value) in [(median, times.median), ("min_ms", times.min), ("max_ms", times.max)] {
            row[key] = value.into();
        }
        row["host_ms"] = Times::of(host_ms, 0.0).median.into();
        row["repetitions"] = times.repetitions.into();
        row["clock_mhz"] = clock.map(|mhz| mhz.round() as u32).into();
        row["clock"] = if clock.is_some() { "measured" } else { "assumed" }.into();
        Ok(())
    }
}
