//! `omr bench ranks`: checks and measures the transfers between the ranks of a run, on several GPUs or processes.

use std::time::Instant;

use serde_json::json;

use super::options::{Options, RANKS};
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Kind, Plan, Region};
use omr_runtime::machine::Machine;
use omr_runtime::ops::lane_sum;
use omr_runtime::ranks::Ranks;
use omr_runtime::tensor::{DType, Tensor};

/// Number of measured repetitions of a transfer.
const REPETITIONS: usize = 5;

/// The data of the transfers, on one rank.
struct Transfers<'a> {
    ranks: &'a mut dyn Ranks,
    /// Number of values that a rank sends to each rank.
    len: usize,
    /// Values that go to each rank.
    send: Vec<Tensor>,
    /// Values from each rank, `[ranks, len]`.
    rows: Tensor,
}

/// Sends known values between all `ranks`, compares them and their sums with the CPU's, and returns the rates as a line.
pub fn run(options: &Options, machine: &Machine, ranks: &mut dyn Ranks) -> Result<String> {
    let (size, kind) = (ranks.size(), machine.target.kind);
    let len = if kind == Kind::Cuda { 4 << 20 } else { 1 << 14 };
    let bytes = (2 * size + 1) * len * size_of::<f32>();
    let mut dev = (machine.device)(&Plan::default().with(Region::Workspace, bytes + (1 << 20)))?;
    let own = ranks.rank();
    let send = |to| dev.upload(Region::Workspace, &(0..len).map(|i| value(own, to, i)).collect::<Vec<f32>>(), &[len]);
    let send = (0..size).map(send).collect::<Result<Vec<Tensor>>>()?;
    let rows = dev.zeros(Region::Workspace, DType::F32, &[size, len])?;
    let mut all = Transfers { ranks, len, send, rows };
    let exchange = all.rate(&mut dev, Transfers::exchange)?;
    all.check(&mut dev, "exchange", |_| own)?;
    all.check_sum(&mut dev)?;
    all.send[0] = all.send[own];
    dev.fill_zero(all.rows)?;
    let gather = all.rate(&mut dev, Transfers::all_gather)?;
    all.check(&mut dev, "all_gather", |from| from)?;
    let mib = (len * size_of::<f32>()) as f64 / f64::from(1 << 20);
    let shape = format!(
        "{size} ranks, {mib} MiB to each: exchange {exchange:.2} GB/s, all-gather {gather:.2} GB/s sent by each rank; \
         sums as on the CPU"
    );
    let row = json!({"name": RANKS, "shape": shape, "exchange_gb_per_s": exchange, "all_gather_gb_per_s": gather});
    if own == 0 {
        options.write(&json!({"device": kind.name(), "rows": [row]}))?;
    }
    Ok(format!("{shape}\n"))
}

/// Returns value `i` of those that rank `from` sends to rank `to`.
fn value(from: usize, to: usize, i: usize) -> f32 {
    ((i * 31 + from * 101 + to * 17) % 1009) as f32 / 504.0 - 1.0
}

impl Transfers<'_> {
    fn row(&self, rank: usize) -> Tensor {
        self.rows.slice(rank, rank + 1).reshape(&[self.len])
    }

    fn exchange(&mut self, dev: &mut Device) -> Result<()> {
        let send: Vec<_> = self.send.iter().map(|tensor| vec![*tensor]).collect();
        let recv: Vec<_> = (0..send.len()).map(|rank| vec![self.row(rank)]).collect();
        dev.on_side_stream(|dev| self.ranks.exchange(dev, "exchange", &send, &recv))?;
        self.ranks.settle(dev, "exchange")?;
        dev.join_side_stream()
    }

    /// Copies the values of each rank, which are those that it sends to itself, to all ranks.
    fn all_gather(&mut self, dev: &mut Device) -> Result<()> {
        dev.copy(self.send[0], self.row(self.ranks.rank()))?;
        let owned: Vec<_> = (0..self.send.len()).map(|rank| (rank, self.row(rank))).collect();
        self.ranks.all_gather(dev, "all_gather", &owned)
    }

    /// Returns the GB/s that the slowest rank sends to the others.
    fn rate(&mut self, dev: &mut Device, transfer: impl Fn(&mut Self, &mut Device) -> Result<()>) -> Result<f64> {
        transfer(self, dev)?;
        self.ranks.gather("the start of a measurement", &[])?;
        let start = Instant::now();
        for _ in 0..REPETITIONS {
            transfer(self, dev)?;
        }
        let own = start.elapsed().as_secs_f64() / REPETITIONS as f64;
        let all = self.ranks.gather("the seconds of a measurement", &own.to_le_bytes())?;
        let seconds = all.iter().filter_map(|bytes| Some(f64::from_le_bytes(bytes.as_slice().try_into().ok()?)));
        let bytes = (self.ranks.size() - 1) * self.len * size_of::<f32>();
        Ok(bytes as f64 / seconds.fold(0.0, f64::max) / 1e9)
    }

    /// Errors unless the values from each rank are those that it sends to the rank that `receiver` gives.
    fn check(&self, dev: &mut Device, what: &str, receiver: impl Fn(usize) -> usize) -> Result<()> {
        for rank in 0..self.send.len() {
            let (to, found) = (receiver(rank), dev.read::<f32>(self.row(rank))?);
            if let Some(i) = (0..self.len).find(|&i| found[i] != value(rank, to, i)) {
                let (name, sent) = (self.ranks.name(rank), value(rank, to, i));
                return Err(Error::Failed(format!("{what}: value {i} from {name} is {}, not {sent}", found[i])));
            }
        }
        Ok(())
    }

    /// Errors unless the device adds the received values to the bits of the CPU's sums in the same order.
    fn check_sum(&self, dev: &mut Device) -> Result<()> {
        let sums = dev.zeros(Region::Workspace, DType::F32, &[self.len])?;
        lane_sum::fwd(dev, self.rows, sums)?;
        let (found, to) = (dev.read::<f32>(sums)?, self.ranks.rank());
        let expected = |i: usize| (0..self.send.len()).fold(0.0, |sum: f32, from| sum + value(from, to, i));
        match (0..self.len).find(|&i| found[i].to_bits() != expected(i).to_bits()) {
            Some(i) => Err(Error::Failed(format!("lane_sum: sum {i} is {}, not {}", found[i], expected(i)))),
            None => Ok(()),
        }
    }
}
