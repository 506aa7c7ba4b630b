//! Tests of cu/calibrate_tma.cu: each wrapper of mbarriers and bulk copies alone. If these tests pass on the emulator,
//! the emulator is right. If they pass on a GPU of compute capability 9.0, the GPU agrees with the emulator.
//! tests/runtime/golden/isa_tma.rs compares boxes, elements outside a tensor, and mbarrier phases with NVIDIA's tables and
//! rules.

use omr_base::error::Result;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, EncodedMap, Launch, On, Params, TensorMap};

use crate::kernels::inputs::{random, up};
use crate::kernels::{
    Outcome, Schedule, equal, hopper, hopper_with, mutate_sites_on, mutate_source_of, no_hopper, skipped,
};

/// Words of shared memory of the box kernels, and their content before a load.
pub const WORDS: usize = 9 * 1024;
pub const SENTINEL: u32 = 0xabcd_ef01;
const SMEM: usize = WORDS * 4 + 64;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Args {
    map: EncodedMap,
    x: u64,
    y: u64,
    n: u64,
    mode: u64,
    at: [i32; 4],
    rank: i32,
    offset: i32,
    reserved: [i32; 2],
}

/// A tensor in global memory, and the box that is copied.
#[derive(Clone)]
pub struct Boxed {
    /// Memory of the tensor, in complete words.
    pub memory: Vec<u32>,
    /// Bytes per element.
    pub element: usize,
    /// Elements per dimension, innermost first.
    pub dims: Vec<u64>,
    /// Bytes between neighbours per dimension, without the innermost.
    pub strides: Vec<u64>,
    /// Elements of the box per dimension.
    pub sides: Vec<u32>,
    /// Bytes of the swizzle span: 0, 32, 64 or 128.
    pub swizzle: u32,
    /// Coordinates of the box's first element.
    pub at: Vec<i32>,
    /// Offset of the box in shared memory, in bytes.
    pub offset: usize,
}

impl Boxed {
    /// Returns the bytes of the box.
    pub fn bytes(&self) -> usize {
        self.sides.iter().product::<u32>() as usize * self.element
    }

    /// Returns, for each element of the box, innermost first, its byte offset in shared memory and, if it is inside the
    /// tensor, in global memory.
    fn places(&self) -> Vec<(usize, Option<usize>)> {
        let mask = if self.swizzle == 0 { 0 } else { self.swizzle as usize / 16 - 1 };
        let place = |i: usize| {
            let byte = self.offset + i * self.element;
            let (mut rest, mut global) = (i, Some(0i64));
            for (d, side) in self.sides.iter().enumerate() {
                let at = i64::from(self.at[d]) + (rest % *side as usize) as i64;
                rest /= *side as usize;
                let stride = if d == 0 { self.element as i64 } else { self.strides[d - 1] as i64 };
                let inside = at >= 0 && at < self.dims[d] as i64;
                global = global.filter(|_| inside).map(|sum| sum + at * stride);
            }
            (byte ^ (byte >> 7 & mask) << 4, global.map(|byte| byte as usize))
        };
        (0..self.bytes() / self.element).map(place).collect()
    }

    /// Runs a kernel on this tensor. Returns its memory and `y` afterwards.
    fn run(&self, dev: &mut Device, kernel: &'static str, x: &[u32], y: usize) -> Result<(Vec<u32>, Vec<u32>)> {
        let (tensor, x) = (up(dev, &self.memory, &[self.memory.len()]), up(dev, x, &[x.len()]));
        let y = up(dev, &vec![0u32; y], &[y]);
        let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
        let map = gpu.driver.tensor_map(&TensorMap {
            address: gpu.ptr(tensor),
            element: self.element,
            dims: self.dims.clone(),
            strides: self.strides.clone(),
            box_dims: self.sides.clone(),
            swizzle: self.swizzle,
        })?;
        let mut at = [0; 4];
        at[..self.at.len()].copy_from_slice(&self.at);
        let args = Args {
            map,
            x: gpu.ptr(x),
            y: gpu.ptr(y),
            n: self.bytes() as u64,
            mode: 0,
            at,
            rank: self.at.len() as i32,
            offset: self.offset as i32,
            reserved: [0; 2],
        };
        gpu.launch("calibrate_tma", kernel, Launch::new([1, 1, 1], 32, SMEM), Params::of(&args))?;
        Ok((dev.read::<u32>(tensor)?, dev.read::<u32>(y)?))
    }

    /// Returns all of shared memory after the box was loaded over sentinels.
    pub fn load(&self, dev: &mut Device) -> Result<Vec<u32>> {
        Ok(self.run(dev, "calibrate_box_load", &[0; 4], WORDS)?.1)
    }

    /// Returns the tensor after the box was stored from shared memory `x`.
    pub fn store(&self, dev: &mut Device, x: &[u32]) -> Result<Vec<u32>> {
        Ok(self.run(dev, "calibrate_box_store", x, 4)?.0)
    }

    fn loaded(&self) -> Vec<u32> {
        let mut shared = vec![SENTINEL; WORDS];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut shared);
        let memory: &[u8] = bytemuck::cast_slice(&self.memory);
        for (to, from) in self.places() {
            let element = from.map_or([0; 4], |at| std::array::from_fn(|i| memory.get(at + i).copied().unwrap_or(0)));
            bytes[to..to + self.element].copy_from_slice(&element[..self.element]);
        }
        shared
    }

    fn stored(&self, x: &[u32]) -> Vec<u32> {
        let mut memory = self.memory.clone();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
        let shared: &[u8] = bytemuck::cast_slice(x);
        for (from, to) in self.places() {
            if let Some(to) = to {
                bytes[to..to + self.element].copy_from_slice(&shared[from..from + self.element]);
            }
        }
        memory
    }
}

/// Returns random bits.
pub fn words(name: u64, len: usize) -> Vec<u32> {
    let mut random = random(name);
    (0..len).map(|_| random.next_u32()).collect()
}

/// Returns boxes of two, three and four dimensions, inside the tensor and over every edge, with both element sizes and
/// every swizzle. They begin at multiples of 16 bytes.
fn boxes() -> Vec<Boxed> {
    let base = Boxed {
        memory: words(1, 16 * 1024),
        element: 2,
        dims: vec![100, 90],
        strides: vec![208],
        sides: vec![64, 32],
        swizzle: 128,
        at: vec![0, 0],
        offset: 1024,
    };
    let mut all = Vec::new();
    for (swizzle, inner) in [(128, 64), (64, 32), (32, 16), (0, 8), (0, 72), (0, 256)] {
        for at in [[0, 0], [40, 70], [-16, -3], [96, 89], [8, 5], [104, 0], [0, -32], [-64, 4]] {
            all.push(Boxed { swizzle, sides: vec![inner, 32], at: at.to_vec(), ..base.clone() });
        }
    }
    for at in [[0, 0], [20, 60], [-4, -1]] {
        let floats = Boxed { element: 4, dims: vec![50, 90], sides: vec![32, 24], at: at.to_vec(), ..base.clone() };
        all.push(Boxed { swizzle: 0, sides: vec![20, 24], ..floats.clone() });
        all.push(floats);
    }
    // Planes, and a pitch that is not a product of the other sizes.
    let planes = Boxed { dims: vec![100, 12, 7], strides: vec![208, 2512], sides: vec![64, 5, 3], ..base.clone() };
    for at in [[0, 0, 0], [64, 9, 5], [-8, -2, -1], [0, 0, 7], [16, 4, 2]] {
        all.push(Boxed { at: at.to_vec(), ..planes.clone() });
        all.push(Boxed { at: at.to_vec(), swizzle: 0, offset: 128, ..planes.clone() });
    }
    let four = Boxed { dims: vec![40, 6, 5, 4], strides: vec![80, 480, 2400], sides: vec![32, 3, 2, 2], ..base };
    for at in [[0, 0, 0, 0], [8, 4, 4, 3], [-8, 5, -1, 2]] {
        all.push(Boxed { at: at.to_vec(), swizzle: 64, ..four.clone() });
    }
    all
}

fn box_text(boxed: &Boxed) -> String {
    let Boxed { element, dims, sides, swizzle, at, offset, .. } = boxed;
    format!("box {sides:?} of {element} bytes at {at:?} of {dims:?}, swizzle {swizzle}, offset {offset}")
}

#[test]
fn boxes_are_loaded_where_they_belong() {
    if no_hopper("boxes") {
        return;
    }
    let mut dev = hopper();
    for boxed in boxes() {
        let found = boxed.load(&mut dev).unwrap_or_else(|error| panic!("{}: {error}", box_text(&boxed)));
        equal(&box_text(&boxed), &found, &boxed.loaded()).unwrap();
    }
    println!("{} boxes", boxes().len());
}

#[test]
fn a_box_that_begins_between_16_bytes_is_refused() {
    if skipped("an illegal instruction") {
        return;
    }
    let boxed = Boxed { at: vec![3, 5], ..boxes().swap_remove(0) };
    let error = boxed.load(&mut hopper()).unwrap_err().to_string();
    assert!(
        error.contains("tma_load of a box at column 3, 6 bytes from the first one: a multiple of 16 bytes"),
        "{error}"
    );
}

#[test]
fn boxes_are_stored_inside_their_tensor_alone() {
    if no_hopper("stores of boxes") {
        return;
    }
    let mut dev = hopper();
    let x = words(2, WORDS);
    for boxed in boxes().iter().filter(|boxed| boxed.at.len() < 4) {
        let found = boxed.store(&mut dev, &x).unwrap_or_else(|error| panic!("{}: {error}", box_text(boxed)));
        equal(&box_text(boxed), &found, &boxed.stored(&x)).unwrap();
    }
}

/// Runs a kernel that does not use the tensor map.
fn plain(
    dev: &mut Device,
    kernel: &'static str,
    threads: u32,
    x: &[u32],
    y: usize,
    n: usize,
    mode: usize,
) -> Result<Vec<u32>> {
    let (x, y) = (up(dev, x, &[x.len()]), up(dev, &vec![0u32; y], &[y]));
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let zeroed: Args = bytemuck::Zeroable::zeroed();
    let args = Args { x: gpu.ptr(x), y: gpu.ptr(y), n: n as u64, mode: mode as u64, ..zeroed };
    gpu.launch("calibrate_tma", kernel, Launch::new([1, 1, 1], threads, SMEM), Params::of(&args))?;
    dev.read::<u32>(y)
}

fn bulk(dev: &mut Device, bytes: usize) -> Outcome {
    let x = words(5, bytes / 4);
    let found = plain(dev, "calibrate_bulk", 64, &x, bytes / 4 + 8, bytes, bytes / 4 + 4)?;
    let mut want: Vec<u32> = x.iter().zip(0..).map(|(word, i)| word.wrapping_add(i)).collect();
    let head = want[..4].to_vec();
    want.extend([0; 4]);
    want.extend(head);
    equal(&format!("{bytes} bytes"), &found, &want)
}

#[test]
fn plain_bytes_come_and_go() {
    if no_hopper("plain bulk copies") {
        return;
    }
    for bytes in [32, 48, 4096, 36_864] {
        bulk(&mut hopper(), bytes).unwrap();
    }
}

/// Returns the answers to the operations (number, operand) of `calibrate_mbarrier`.
pub fn mbarrier(dev: &mut Device, operations: &[[u32; 2]]) -> Result<Vec<u32>> {
    plain(dev, "calibrate_mbarrier", 32, operations.as_flattened(), operations.len(), operations.len(), 0)
}

#[test]
fn an_mbarrier_ends_and_begins_again() {
    if no_hopper("mbarriers") {
        return;
    }
    // The operations: init 2, arrive, test, arrive, test, try, inval, init 1, arrive, try 0, test 1.
    let operations = [[0, 2], [1, 1], [6, 0], [1, 1], [6, 0], [7, 0], [8, 0], [0, 1], [1, 1], [7, 0], [6, 1]];
    let answers = mbarrier(&mut hopper(), &operations).unwrap();
    assert_eq!(answers, [2, 2, 0, 2, 1, 1, 2, 2, 2, 1, 0]);
}

fn pipeline(dev: &mut Device, tiles: usize, ctas: u32) -> Outcome {
    let x = words(6, tiles * 64 * 32);
    let (tensor, y) = (up(dev, &x, &[x.len()]), up(dev, &vec![0u32; x.len()], &[x.len()]));
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let map = gpu.driver.tensor_map(&TensorMap {
        address: gpu.ptr(tensor),
        element: 4,
        dims: vec![32, tiles as u64 * 64],
        strides: vec![128],
        box_dims: vec![32, 64],
        swizzle: 128,
    })?;
    let zeroed: Args = bytemuck::Zeroable::zeroed();
    let args = Args { map, y: gpu.ptr(y), n: tiles as u64, ..zeroed };
    gpu.launch("calibrate_tma", "calibrate_pipeline", Launch::new([ctas, 1, 1], 384, SMEM), Params::of(&args))?;
    let want: Vec<u32> = x.iter().enumerate().map(|(i, word)| word.wrapping_add((i / (64 * 32)) as u32)).collect();
    equal(&format!("{tiles} tiles by {ctas} CTAs"), &dev.read::<u32>(y)?, &want)
}

#[test]
fn a_pipeline_of_three_warpgroups_loses_nothing() {
    if no_hopper("a pipeline") {
        return;
    }
    for (tiles, ctas) in [(1, 1), (3, 1), (4, 1), (13, 1), (14, 3), (2, 4)] {
        pipeline(&mut hopper(), tiles, ctas).unwrap();
    }
}

#[test]
#[ignore = "many schedules"]
fn a_pipeline_is_the_same_under_every_schedule() {
    if no_hopper("a pipeline") {
        return;
    }
    for schedule in Schedule::several(20) {
        pipeline(&mut hopper_with(schedule), 11, 2).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
    }
}

/// The CTAs of a cluster load tiles for each other.
fn multicast(dev: &mut Device, tiles: usize, cluster: u32, ctas: u32) -> Outcome {
    let x = words(7, tiles * 64 * 32);
    let len = x.len() * ctas as usize;
    let (tensor, y) = (up(dev, &x, &[x.len()]), up(dev, &vec![0u32; len], &[len]));
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let map = gpu.driver.tensor_map(&TensorMap {
        address: gpu.ptr(tensor),
        element: 2,
        dims: vec![64, tiles as u64 * 64],
        strides: vec![128],
        box_dims: vec![64, 64 / cluster],
        swizzle: 128,
    })?;
    let zeroed: Args = bytemuck::Zeroable::zeroed();
    let args = Args { map, y: gpu.ptr(y), n: tiles as u64, ..zeroed };
    let launch = Launch { cluster, ..Launch::new([ctas, 1, 1], 160, SMEM) };
    gpu.launch("calibrate_tma", "calibrate_multicast", launch, Params::of(&args))?;
    let of_cta = |cta: u32| x.iter().map(move |word| word.wrapping_add(cta % cluster));
    let want: Vec<u32> = (0..ctas).flat_map(of_cta).collect();
    equal(&format!("{tiles} tiles in clusters of {cluster}"), &dev.read::<u32>(y)?, &want)
}

#[test]
fn a_cluster_loads_for_all_of_its_ctas() {
    if no_hopper("clusters") {
        return;
    }
    for (tiles, cluster, ctas) in [(1, 2, 2), (9, 2, 4), (9, 4, 4), (4, 1, 3)] {
        multicast(&mut hopper(), tiles, cluster, ctas).unwrap();
    }
    for schedule in Schedule::several(7) {
        multicast(&mut hopper_with(schedule), 6, 2, 4).unwrap_or_else(|e| panic!("{schedule:?}: {e}"));
    }
}

#[test]
fn each_synchronising_call_is_needed() {
    if no_hopper("calls left out") {
        return;
    }
    let boxed = boxes().swap_remove(1);
    let x = words(2, WORDS);
    mutate_sites_on(hopper_with, &["kernels/calibrate_tma.cu"], 2, |dev| {
        equal("loaded", &boxed.load(dev)?, &boxed.loaded())?;
        equal("stored", &boxed.store(dev, &x)?, &boxed.stored(&x))?;
        bulk(dev, 64)?;
        let operations = [
            [0, 2],
            [3, 32],
            [4, 16],
            [6, 0],
            [4, 16],
            [5, 1],
            [6, 0],
            [2, 16],
            [7, 1],
            [4, 16],
            [1, 1],
            [7, 1],
            [8, 0],
            [0, 1],
        ];
        equal("answers", &mbarrier(dev, &operations)?, &[2, 2, 2, 0, 2, 2, 1, 2, 0, 2, 2, 1, 2, 2])?;
        pipeline(dev, 6, 1)?;
        multicast(dev, 6, 2, 2)
    });
}

/// Registers are counted from the number that the kernel was compiled for: 168 per thread.
#[test]
#[ignore = "a compilation each"]
fn registers_are_handed_over_only_once() {
    for (from, to) in [
        ("isa::registers_increase<232>", "isa::registers_increase<240>"),
        ("isa::registers_decrease<40>", "isa::registers_decrease<176>"),
        ("isa::registers_increase<232>", "isa::registers_increase<160>"),
    ] {
        mutate_source_of(Arch::Sm90a, "calibrate_tma", from, to, 1, |dev| pipeline(dev, 4, 1));
    }
}
