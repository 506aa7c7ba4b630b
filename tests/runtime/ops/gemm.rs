//! Tests the choice of a tile for a product.

use omr_runtime::device::Launch;
use omr_runtime::ops::gemm::config::{GemmConfig, GemmDesc, Role};
use omr_runtime::ops::gemm::tile::{TILES, Tile};

/// Products of the 7B model's decoder: columns, terms, role.
const DECODER: [(usize, usize, Role); 5] = [
    (4608, 3584, Role::Qkv),
    (3584, 3584, Role::Linear),
    (37_888, 3584, Role::Activation),
    (3584, 18_944, Role::Linear),
    (152_064, 3584, Role::Logits),
];

fn decoded(t: usize) -> impl Iterator<Item = GemmDesc> {
    DECODER.into_iter().map(move |(columns, terms, role)| GemmDesc {
        rows: t,
        columns,
        terms,
        role,
        multiprocessors: 132,
    })
}

#[test]
fn decoding_fills_the_gpu() {
    let ctas = |desc: GemmDesc| desc.plan().tiles(desc.rows, desc.columns).min(desc.multiprocessors);
    let least = (1..=512).flat_map(decoded).map(ctas).min().unwrap();
    println!("least CTAs of a product of the 7B's decoder at 1 to 512 tokens: {least}");
    assert!(least >= 72);
}

#[test]
fn tiles_go_by_the_work() {
    let tile = |rows, columns, terms, role| {
        let config = GemmDesc { rows, columns, terms, role, multiprocessors: 132 }.plan();
        (config.rows, config.columns)
    };
    // Few tokens: enough CTAs to read W at full rate. A small layer: as many multiprocessors as possible.
    assert_eq!([1, 64].map(|t| tile(t, 3584, 3584, Role::Linear)), [(64, 32); 2]);
    assert_eq!(tile(1, 4608, 3584, Role::Qkv), (64, 64));
    assert_eq!(tile(1, 896, 896, Role::Linear), (64, 16));
    // In between: the largest tiles that still occupy the whole GPU at once.
    let down = |t| tile(t, 3584, 18_944, Role::Linear);
    assert_eq!([128, 256, 512].map(down), [(64, 64), (64, 128), (128, 128)]);
    // Many tokens: the widest tile.
    assert_eq!(tile(8192, 3584, 3584, Role::Linear), (128, 256));
    assert_eq!(tile(4608, 3584, 16_384, Role::Gradient), (128, 256));
}

#[test]
fn tiles_fit() {
    // Shared memory of a CTA on compute capability 9.0.
    assert!(Role::Linear.configs().iter().chain(Role::Logits.configs()).all(|c| c.smem() <= 227 << 10));
    assert_eq!(
        Role::Linear.configs()[..3].iter().map(GemmConfig::smem).collect::<Vec<_>>(),
        [215_248, 149_648, 205_976]
    );
}

#[test]
fn tiles_go_by_the_number_of_tokens() {
    let rows = |t: usize| Tile::of(t).rows;
    assert_eq!([0, 1, 16, 17, 128, 129, 5000].map(rows), [16, 16, 16, 64, 64, 128, 128]);
    let launch = Tile::of(129).launch("test", 129, 3600).unwrap();
    assert_eq!(launch, Launch::new([2 * 29, 1, 1], 128, 98_304));
    // Shared memory of a CTA on compute capability 8.6.
    assert!(TILES.iter().all(|t| t.smem() <= 99 << 10));
}
