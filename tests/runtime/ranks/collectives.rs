//! Tests that ranks receive exactly the data that other ranks send.

use std::sync::atomic::Ordering;

use omr_base::error::Result;
use omr_base_tests::heap::largest_allocation;
use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ranks::{self, Ranks, Tcp};
use omr_runtime::tensor::{DType, Tensor};

use super::{all_well, entries};
use crate::kernels;

const BYTES: usize = 8 << 20;

fn cpu() -> Device {
    Device::cpu(&Plan::default().with(Region::Workspace, BYTES), 1, Isa::detect()).unwrap()
}

/// Returns a pseudo-random number for three indices.
fn mixed(a: usize, b: usize, c: usize) -> usize {
    let mixed = (a * 31 + b * 17 + c * 7 + 3) as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as usize
}

/// Returns the number of elements of the `i`-th tensor that `from` sends to `to`: none, few or many.
fn len(from: usize, to: usize, i: usize) -> usize {
    [0, 1, 1000, 70_001][mixed(from, to, i) % 4]
}

fn values(from: usize, to: usize, i: usize) -> Vec<f32> {
    (0..len(from, to, i)).map(|at| mixed(from * 8 + to, i, at) as f32).collect()
}

fn tensor(dev: &mut Device, data: &[f32]) -> Result<Tensor> {
    dev.upload(Region::Workspace, data, &[data.len()])
}

pub fn exchange(dev: &mut Device, ranks: &mut dyn Ranks) -> Result<()> {
    let (own, size) = (ranks.rank(), ranks.size());
    let mut send = vec![Vec::new(); size];
    let mut recv = vec![Vec::new(); size];
    for peer in 0..size {
        for i in 0..3 {
            send[peer].push(tensor(dev, &values(own, peer, i))?);
            recv[peer].push(dev.zeros(Region::Workspace, DType::F32, &[len(peer, own, i)])?);
        }
    }
    let before = ranks.sent();
    ranks.exchange(dev, "pieces", &send, &recv)?;
    let handed = (0..size).filter(|peer| *peer != own).flat_map(|peer| (0..3).map(move |i| 4 * len(own, peer, i)));
    assert_eq!(ranks.sent() - before, handed.sum::<usize>() as u64);
    for (peer, tensors) in recv.iter().enumerate() {
        for (i, tensor) in tensors.iter().enumerate() {
            assert_eq!(dev.read::<f32>(*tensor)?, values(peer, own, i), "{peer} to {own}, {i}");
        }
    }
    Ok(())
}

pub fn all_gather(dev: &mut Device, ranks: &mut dyn Ranks) -> Result<()> {
    let (own, size) = (ranks.rank(), ranks.size());
    let mut owned = Vec::new();
    for i in 0..7 {
        let owner = mixed(i, size, 0) % size;
        let data = values(owner, owner, i);
        let ours = if owner == own { data } else { vec![-1.0; data.len()] };
        owned.push((owner, tensor(dev, &ours)?));
    }
    ranks.all_gather(dev, "weights", &owned)?;
    for (i, (owner, tensor)) in owned.iter().enumerate() {
        assert_eq!(dev.read::<f32>(*tensor)?, values(*owner, *owner, i), "{i}");
    }
    Ok(())
}

pub fn host_bytes(ranks: &mut dyn Ranks) -> Result<()> {
    let bytes = |rank: usize| vec![rank as u8; len(rank, rank, 1) * 4];
    let all = ranks.gather("losses", &bytes(ranks.rank()))?;
    assert_eq!(all, (0..ranks.size()).map(bytes).collect::<Vec<_>>());
    let last = ranks.rank() + 1 == ranks.size();
    assert_eq!(ranks.any("flags", &[false, last, true])?, [false, true, true]);
    ranks.same("config", "alike")
}

#[test]
fn bytes_arrive_as_they_were_sent() {
    for size in [1, 2, 3, 5] {
        all_well(entries(size), |tcp| {
            let mut dev = cpu();
            for _ in 0..2 {
                host_bytes(tcp)?;
                exchange(&mut dev, tcp)?;
                all_gather(&mut dev, tcp)?;
            }
            Ok(())
        });
    }
}

#[test]
fn bytes_arrive_on_the_emulated_gpu() {
    all_well(entries(2), |tcp| {
        let mut dev = kernels::emu();
        exchange(&mut dev, tcp)?;
        all_gather(&mut dev, tcp)
    });
}

#[test]
fn who_differs_is_named_to_all() {
    let work = |tcp: &mut Tcp| {
        let rate = if tcp.rank() == 1 { "lr 2" } else { "lr 1" };
        let others = "the same of all, ".repeat(20);
        tcp.same("config", &format!("{others}{rate}, {others}"))
    };
    for error in super::all_end(entries(3), work) {
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("config of rank 1 (") && text.len() < 500, "{text}");
        let (found, expected) = text.split_once("expected").unwrap();
        assert!(found.contains("lr 2, the") && expected.contains("lr 1, the"), "{text}");
    }
}

#[test]
fn a_stop_asked_of_one_reaches_all() {
    let entries = entries(3);
    entries[2].stop.store(true, Ordering::Relaxed);
    let flags: Vec<_> = entries.iter().map(|entry| entry.stop.clone()).collect();
    all_well(entries, |tcp| {
        // As in a real run, all ranks check the flag at each step, and all stop at the step at which any rank has seen
        // it.
        let flag = &flags[tcp.rank()];
        while !tcp.any("stop", &[tcp.rank() != 2 && flag.load(Ordering::Relaxed)])?[0] {}
        Ok(())
    });
    assert!(flags[0].load(Ordering::Relaxed));
}

/// A rank that sends much data keeps only one piece at a time on the host.
#[test]
fn much_is_handed_over_piece_by_piece() {
    const LEN: usize = 3 << 20;
    all_well(entries(2), |tcp| {
        let (rank, plan) = (tcp.rank(), Plan::default().with(Region::Workspace, 8 * LEN));
        let mut dev = Device::cpu(&plan, 1, Isa::detect())?;
        let value = |rank: usize, i: usize| (i % 1021 + rank) as f32;
        let mut make = |of: usize| {
            let data: Vec<f32> = (0..LEN).map(|i| if of == rank { value(of, i) } else { 0.0 }).collect();
            tensor(&mut dev, &data)
        };
        let owned = [(0, make(0)?), (1, make(1)?)];
        let largest = largest_allocation(|| tcp.all_gather(&mut dev, "weights", &owned).unwrap());
        println!("{largest} bytes of {} at once", 4 * LEN);
        assert!(largest <= ranks::host_bytes(1), "{largest} bytes at once");
        for (owner, tensor) in owned {
            assert!(dev.read::<f32>(tensor)?.into_iter().enumerate().all(|(i, x)| x == value(owner, i)));
        }
        Ok(())
    });
}
