//! Tests of the emulator's driver: memory, streams, graphs and rejected calls.

use bytemuck::NoUninit;
use omr_runtime::device::emu::{Completion, Options};
use omr_runtime::device::{Device, Driver, Event, Gpu, Launch, On, Params, Region, Stream, TensorMap};
use omr_runtime::tensor::{DType, Tensor};

use crate::kernels::{Outcome, Schedule, emu_of, emulator, equal, mutate_sites_on};

/// Kernels that only these tests use.
const SOURCE: &str = r#"#include "isa/isa.cuh"
namespace driver_probe {
struct Args { const float* x; float* y; int n; int shift; };
struct Smem { isa::Shared<float> v[256]; };
}
KERNEL(driver_add, driver_probe::Args, 256, 1) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i < args.n) args.y[i] = args.x[i + args.shift] + 1.0f;
}
KERNEL(driver_turn, driver_probe::Args, 256, 1) {
    auto& smem = isa::smem<driver_probe::Smem>();
    smem.v[threadIdx.x] = args.x[threadIdx.x];
    isa::sync_cta();
    args.y[threadIdx.x] = smem.v[255 - threadIdx.x];
}
KERNEL(driver_twice, driver_probe::Args, 256, 1) {
    auto& smem = isa::smem<driver_probe::Smem>();
    smem.v[threadIdx.x] = args.x[threadIdx.x];
    isa::sync_cta();
    isa::sync_cta();
    args.y[threadIdx.x] = smem.v[255 - threadIdx.x];
}
KERNEL(driver_behind, driver_probe::Args, 256, 1) {
    int i = threadIdx.x;
    if (i < 128) args.y[i] = args.x[i];
    isa::sync_cta();
    if (i >= 128) args.y[i] = args.y[i - 128];
}
"#;

const FILE: &str = "driver_probe";
const KERNELS: &str = "kernels/driver_probe.cu";

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    x: u64,
    y: u64,
    n: i32,
    shift: i32,
}

fn device(schedule: Schedule) -> Device {
    let sources = vec![(format!("kernels/{FILE}.cu"), SOURCE.to_owned())];
    emu_of(Options { sources, ..schedule.options() }).unwrap()
}

fn gpu(dev: &mut Device) -> Gpu<'_> {
    match dev.on() {
        On::Gpu(gpu) => gpu,
        _ => panic!("not a GPU"),
    }
}

fn driver(dev: &mut Device) -> &mut dyn Driver {
    dev.driver().unwrap()
}

fn launch(
    dev: &mut Device,
    stream: Stream,
    name: &'static str,
    x: Tensor,
    y: Tensor,
    shift: i32,
) -> omr_base::error::Result<()> {
    let mut gpu = gpu(dev);
    gpu.stream = stream;
    let n = y.len() as u32;
    let args = Args { x: gpu.ptr(x), y: gpu.ptr(y), n: n as i32, shift };
    gpu.launch(FILE, name, Launch::new([n.div_ceil(256), 1, 1], 256, 1024), Params::of(&args))
}

fn ramp(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32).collect()
}

fn pair(dev: &mut Device, n: usize) -> (Tensor, Tensor) {
    let x = dev.upload(Region::Weights, &ramp(n), &[n]).unwrap();
    let y = dev.alloc(Region::Workspace, DType::F32, &[n]).unwrap();
    (x, y)
}

fn plus(n: usize, add: f32) -> Vec<f32> {
    ramp(n).iter().map(|v| v + add).collect()
}

#[test]
fn launches_and_counts() {
    let mut dev = device(Schedule::FIXED);
    let (x, y) = pair(&mut dev, 1000);
    launch(&mut dev, Stream::COMPUTE, "driver_add", x, y, 0).unwrap();
    assert_eq!(dev.read::<f32>(y).unwrap(), plus(1000, 1.0));
    let counters = emulator(&mut dev).counters();
    assert_eq!((counters.launches, counters.kernels, counters.synchronizations), (1, 1, 1));
}

#[test]
fn an_access_past_the_end_names_the_kernel() {
    for schedule in Schedule::several(3) {
        let mut dev = device(schedule);
        let (x, y) = pair(&mut dev, 1000);
        let error = launch(&mut dev, Stream::COMPUTE, "driver_add", x, y, 1).and_then(|()| dev.read::<f32>(y));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("driver_add"), "{text}");
        assert!(text.contains("(0 bytes past the end of a tensor of 4000 bytes)"), "{text}");
        // The error persists, as on a GPU.
        assert_eq!(dev.read::<f32>(x).unwrap_err().to_string(), text);
    }
}

#[test]
fn released_memory_is_out_of_reach() {
    let mut dev = device(Schedule::FIXED);
    let x = dev.upload(Region::Weights, &ramp(256), &[256]).unwrap();
    let mark = dev.mark(Region::Workspace);
    let y = dev.alloc(Region::Workspace, DType::F32, &[256]).unwrap();
    launch(&mut dev, Stream::COMPUTE, "driver_add", x, y, 0).unwrap();
    dev.release(mark);
    launch(&mut dev, Stream::COMPUTE, "driver_add", x, y, 0).unwrap();
    let text = driver(&mut dev).synchronize(Stream::COMPUTE).unwrap_err().to_string();
    assert!(text.contains("driver_add") && text.contains("released or never allocated"), "{text}");
    // The launch before the release was valid.
    assert_eq!(emulator(&mut dev).counters().kernels, 2);
}

#[test]
fn fresh_memory_is_poison() {
    let mut dev = device(Schedule::FIXED);
    let (_, y) = pair(&mut dev, 100);
    assert!(dev.read::<f32>(y).unwrap().iter().all(|v| v.is_nan()));
    let mark = dev.mark(Region::Workspace);
    let first = dev.upload(Region::Workspace, &ramp(100), &[100]).unwrap();
    dev.release(mark);
    let second = dev.alloc(Region::Workspace, DType::F32, &[100]).unwrap();
    assert_eq!(first, second);
    assert!(dev.read::<f32>(second).unwrap().iter().all(|v| v.is_nan()), "it kept what was there before");
}

#[test]
fn copies_check_their_ends() {
    let mut dev = device(Schedule::FIXED);
    let (x, y) = pair(&mut dev, 256);
    let (from, to) = (gpu(&mut dev).ptr(x), gpu(&mut dev).ptr(y));
    driver(&mut dev).copy(Stream::COMPUTE, to, from, 1024).unwrap();
    assert_eq!(dev.read::<f32>(y).unwrap(), ramp(256));
    driver(&mut dev).copy(Stream::COMPUTE, to, from, 1025).unwrap();
    let text = driver(&mut dev).synchronize(Stream::COMPUTE).unwrap_err().to_string();
    assert!(text.contains("past the tensor's end"), "{text}");
}

/// Uses two streams and two events. The side stream must not start before the upload, and the main stream must not read
/// before the side stream ends.
fn two_streams(dev: &mut Device) -> Outcome {
    let n = 300;
    let (x, y) = pair(dev, n);
    let z = dev.alloc(Region::Workspace, DType::F32, &[n])?;
    let (side, events) = side_stream(dev)?;
    driver(dev).record(events[0], Stream::COMPUTE)?;
    driver(dev).wait(side, events[0])?;
    launch(dev, side, "driver_add", x, y, 0)?;
    driver(dev).record(events[1], side)?;
    driver(dev).wait(Stream::COMPUTE, events[1])?;
    launch(dev, Stream::COMPUTE, "driver_add", y, z, 0)?;
    equal("z", &dev.read::<f32>(z)?, &plus(n, 2.0))
}

fn side_stream(dev: &mut Device) -> omr_base::error::Result<(Stream, [Event; 2])> {
    let driver = driver(dev);
    Ok((driver.stream()?, [driver.event()?, driver.event()?]))
}

#[test]
fn every_event_call_is_needed() {
    mutate_sites_on(device, &[file!()], 6, two_streams);
}

#[test]
fn every_barrier_is_needed() {
    mutate_sites_on(device, &[KERNELS], 6, |dev| turned(dev, "driver_turn"));
}

fn turned(dev: &mut Device, name: &'static str) -> Outcome {
    let (x, y) = pair(dev, 256);
    launch(dev, Stream::COMPUTE, name, x, y, 0)?;
    let turned: Vec<f32> = ramp(256).into_iter().rev().collect();
    equal("y", &dev.read::<f32>(y)?, &turned)
}

#[test]
#[should_panic(expected = "green when skipped")]
fn a_barrier_written_twice_is_reported() {
    mutate_sites_on(device, &[KERNELS], 6, |dev| turned(dev, "driver_twice"));
}

/// Runs a kernel that is correct only in the fixed order, in which threads 0 to 127 run before the others.
fn behind(dev: &mut Device) -> Outcome {
    let (x, y) = pair(dev, 256);
    launch(dev, Stream::COMPUTE, "driver_behind", x, y, 0)?;
    equal("y", &dev.read::<f32>(y)?, &[ramp(128), ramp(128)].concat())
}

#[test]
fn a_barrier_that_only_some_orders_need_is_found_by_seeds() {
    mutate_sites_on(device, &[KERNELS], 6, behind);
}

#[test]
#[should_panic(expected = "green when skipped")]
fn a_barrier_that_only_some_orders_need_is_not_found_by_the_fixed_one() {
    mutate_sites_on(device, &[KERNELS], 1, behind);
}

/// Launches on two streams between a fork and a join, then once more.
fn forked(
    dev: &mut Device,
    [x, y, z, w]: [Tensor; 4],
    side: Stream,
    events: [Event; 2],
) -> omr_base::error::Result<()> {
    driver(dev).record(events[0], Stream::COMPUTE)?;
    driver(dev).wait(side, events[0])?;
    launch(dev, side, "driver_add", x, y, 0)?;
    launch(dev, Stream::COMPUTE, "driver_add", x, z, 0)?;
    driver(dev).record(events[1], side)?;
    driver(dev).wait(Stream::COMPUTE, events[1])?;
    launch(dev, Stream::COMPUTE, "driver_add", y, w, 0)
}

#[test]
fn a_replay_does_what_the_launches_did() {
    for schedule in Schedule::several(5) {
        let mut dev = device(schedule);
        let n = 300;
        let [y, z, w] = [(); 3].map(|()| dev.alloc(Region::Workspace, DType::F32, &[n]).unwrap());
        let x = dev.upload(Region::Weights, &ramp(n), &[n]).unwrap();
        let (side, events) = side_stream(&mut dev).unwrap();
        forked(&mut dev, [x, y, z, w], side, events).unwrap();
        let direct = [y, z, w].map(|t| dev.read::<f32>(t).unwrap());
        assert_eq!(direct[2], plus(n, 2.0));
        for t in [y, z, w] {
            dev.fill_zero(t).unwrap();
        }
        driver(&mut dev).begin_capture(Stream::COMPUTE).unwrap();
        forked(&mut dev, [x, y, z, w], side, events).unwrap();
        let graph = driver(&mut dev).end_capture(Stream::COMPUTE).unwrap();
        assert!(dev.read::<f32>(w).unwrap().iter().all(|v| *v == 0.0), "a captured launch ran");
        driver(&mut dev).replay(graph, Stream::COMPUTE).unwrap();
        assert_eq!([y, z, w].map(|t| dev.read::<f32>(t).unwrap()), direct);
        dev.write(x, &plus(n, 10.0)).unwrap();
        driver(&mut dev).replay(graph, Stream::COMPUTE).unwrap();
        assert_eq!(dev.read::<f32>(w).unwrap(), plus(n, 12.0));
        let counters = emulator(&mut dev).counters();
        assert_eq!((counters.launches, counters.kernels, counters.replays), (6, 9, 2));
    }
}

#[test]
fn scratch_of_a_capture_is_taken_by_each_replay() {
    for schedule in Schedule::several(4) {
        let mut dev = device(schedule);
        let n = 300;
        let x = dev.upload(Region::Weights, &ramp(n), &[n]).unwrap();
        let y = dev.alloc(Region::Overlay, DType::F32, &[n]).unwrap();
        driver(&mut dev).begin_capture(Stream::COMPUTE).unwrap();
        let mark = dev.mark(Region::Workspace);
        let scratch = dev.alloc(Region::Workspace, DType::F32, &[n]).unwrap();
        launch(&mut dev, Stream::COMPUTE, "driver_add", x, scratch, 0).unwrap();
        launch(&mut dev, Stream::COMPUTE, "driver_add", scratch, y, 0).unwrap();
        dev.release(mark);
        let graph = driver(&mut dev).end_capture(Stream::COMPUTE).unwrap();
        for _ in 0..2 {
            dev.fill_zero(y).unwrap();
            driver(&mut dev).replay(graph, Stream::COMPUTE).unwrap();
            assert_eq!(dev.read::<f32>(y).unwrap(), plus(n, 2.0));
        }
        driver(&mut dev).drop_graph(graph);
        let text = driver(&mut dev).replay(graph, Stream::COMPUTE).unwrap_err().to_string();
        assert!(text.contains("graph 0"), "{text}");
        // Outside the graph the scratch memory is released.
        launch(&mut dev, Stream::COMPUTE, "driver_add", scratch, y, 0).unwrap_or(());
        assert!(dev.read::<f32>(y).unwrap_err().to_string().contains("released"));
    }
}

#[test]
fn a_capture_refuses_what_a_card_refuses() {
    let mut dev = device(Schedule::FIXED);
    let (x, y) = pair(&mut dev, 256);
    let (side, events) = side_stream(&mut dev).unwrap();
    let lost = |dev: &mut Device, call: &dyn Fn(&mut Device) -> omr_base::error::Result<()>, what: &str| {
        driver(dev).begin_capture(Stream::COMPUTE).unwrap();
        let text = call(dev).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
        let text = driver(dev).end_capture(Stream::COMPUTE).unwrap_err().to_string();
        assert!(text.contains("the capture is invalid"), "{text}");
    };
    lost(&mut dev, &|dev| driver(dev).synchronize(Stream::COMPUTE), "a synchronisation");
    lost(&mut dev, &|dev| driver(dev).map(4096).map(drop), "an allocation");
    lost(&mut dev, &|dev| driver(dev).pinned(64).map(drop), "an allocation");
    lost(&mut dev, &|dev| dev.write(x, &ramp(256)), "pageable");
    lost(&mut dev, &|dev| dev.read::<f32>(x).map(drop), "pageable");
    driver(&mut dev).record(events[0], side).unwrap();
    lost(&mut dev, &|dev| driver(dev).wait(Stream::COMPUTE, events[0]), "outside it");

    // A forked stream that is never joined.
    driver(&mut dev).begin_capture(Stream::COMPUTE).unwrap();
    driver(&mut dev).record(events[0], Stream::COMPUTE).unwrap();
    driver(&mut dev).wait(side, events[0]).unwrap();
    launch(&mut dev, side, "driver_add", x, y, 0).unwrap();
    let text = driver(&mut dev).end_capture(Stream::COMPUTE).err().unwrap().to_string();
    assert!(text.contains("without waiting for stream"), "{text}");

    // Rejected calls are not faults: the device continues to work.
    launch(&mut dev, Stream::COMPUTE, "driver_add", x, y, 0).unwrap();
    assert_eq!(dev.read::<f32>(y).unwrap(), plus(256, 1.0));
}

#[test]
fn pinned_copies_run_late() {
    let mut dev = device(Schedule::FIXED);
    let (x, _) = pair(&mut dev, 64);
    let from = gpu(&mut dev).ptr(x);
    let d = driver(&mut dev);
    let down = d.pinned(256).unwrap();
    d.download_pinned(Stream::COMPUTE, from, down, 256).unwrap();
    // A caller that does not wait reads poison.
    assert!(d.pinned_bytes(down).iter().all(|b| *b == 0xFF));
    d.synchronize(Stream::COMPUTE).unwrap();
    assert_eq!(d.pinned_bytes(down), bytemuck::cast_slice::<f32, u8>(&ramp(64)));
    assert!(d.download_pinned(Stream::COMPUTE, from, down, 257).is_err());
}

#[test]
fn launches_are_refused_as_on_a_gpu() {
    let mut dev = device(Schedule::FIXED);
    let (x, y) = pair(&mut dev, 256);
    let (x, y) = (gpu(&mut dev).ptr(x), gpu(&mut dev).ptr(y));
    let args = Args { x, y, n: 256, shift: 0 };
    let params = bytemuck::bytes_of(&args);
    let d = driver(&mut dev);
    let kernel = d.kernel(FILE, "driver_add").unwrap();
    let mut refused = |launch: Launch, params: &[u8], what: &str| {
        let text = d.launch(Stream::COMPUTE, kernel, &launch, params).unwrap_err().to_string();
        assert!(text.contains(what) && text.contains("driver_add"), "{text}");
    };
    let good = Launch::new([1, 1, 1], 256, 0);
    refused(Launch { grid: [1, 0, 1], ..good }, params, "a grid of 1 x 0 x 1");
    refused(Launch { grid: [1, 65_536, 1], ..good }, params, "a grid of");
    refused(Launch { block: 0, ..good }, params, "0 threads");
    refused(Launch { block: 288, ..good }, params, "launch bound of 256");
    refused(Launch { block: 1056, ..good }, params, "1056 threads");
    refused(Launch { smem: 163 * 1024 + 1, ..good }, params, "dynamic shared memory");
    refused(Launch { cluster: 2, ..good }, params, "a cluster of 2");
    refused(good, &params[..16], "16 bytes of parameters");
    d.launch(Stream::COMPUTE, kernel, &good, params).unwrap();
    d.synchronize(Stream::COMPUTE).unwrap();

    let text = d.kernel(FILE, "driver_sub").unwrap_err().to_string();
    assert!(text.contains("kernels/driver_probe.cu has no kernel driver_sub"), "{text}");
    let text = d.kernel("no_such_file", "kernel").unwrap_err().to_string();
    assert!(text.contains("no kernel source kernels/no_such_file.cu"), "{text}");
    assert!(d.launch(Stream(9), kernel, &good, params).unwrap_err().to_string().contains("stream 9"));
}

#[test]
fn tensor_maps_say_all_they_were_made_of() {
    let mut dev = device(Schedule::FIXED);
    let good = TensorMap {
        address: 4096,
        element: 2,
        dims: vec![100, 30],
        strides: vec![208],
        box_dims: vec![64, 16],
        swizzle: 128,
    };
    let d = driver(&mut dev);
    let map = d.tensor_map(&good).unwrap();
    assert_eq!(map, d.tensor_map(&good).unwrap());
    assert_ne!(map, d.tensor_map(&TensorMap { box_dims: vec![64, 8], ..good.clone() }).unwrap());
    assert!(d.tensor_map(&TensorMap { strides: vec![200], ..good }).is_err());
}

#[test]
fn ranges_are_kept_while_the_profiler_is_on() {
    let mut dev = device(Schedule::FIXED);
    let d = driver(&mut dev);
    d.range_push("unseen");
    d.profiler(true).unwrap();
    d.range_push("step");
    d.range_push("forward");
    d.range_pop();
    d.range_push("backward");
    d.range_pop();
    d.range_pop();
    d.profiler(false).unwrap();
    d.range_push("unseen");
    let emu = emulator(&mut dev);
    let ranges: Vec<(usize, &str)> = emu.ranges().iter().map(|(depth, name)| (*depth, name.as_str())).collect();
    assert_eq!(ranges, [(1, "step"), (2, "forward"), (2, "backward")]);
    assert_eq!((emu.counters().profiler_starts, emu.counters().profiler_stops), (1, 1));
}

#[test]
fn the_order_of_streams_is_seeded() {
    // Two streams race for one tensor. Which one is last depends only on the seed.
    let last = |seed: u64| {
        let schedule = Schedule { seed, completion: Completion::Random, sms: 2 };
        let mut dev = device(schedule);
        let (_, y) = pair(&mut dev, 16);
        let to = gpu(&mut dev).ptr(y);
        let (side, events) = side_stream(&mut dev).unwrap();
        driver(&mut dev).record(events[0], Stream::COMPUTE).unwrap();
        driver(&mut dev).wait(side, events[0]).unwrap();
        driver(&mut dev).fill(side, to, 1, 64).unwrap();
        driver(&mut dev).fill(Stream::COMPUTE, to, 2, 64).unwrap();
        driver(&mut dev).synchronize(side).unwrap();
        dev.read::<f32>(y).unwrap()[0].to_bits() & 0xFF
    };
    let seen: Vec<u32> = (1..40).map(last).collect();
    assert!(seen.contains(&1) && seen.contains(&2), "{seen:?}");
    assert_eq!(seen, (1..40).map(last).collect::<Vec<_>>());
}
