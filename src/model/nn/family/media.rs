//! The keys of `config.json` that all families with images share.

use super::dense;
use super::node::Node;
use crate::nn::config::{Measured, MediaConfig, ModelConfig, SizeCheck, TextConfig, TowerConfig, TowerKind};
use omr_base::error::{Error, Result};
use omr_data::image::{MediaIds, PatchGrid};

/// Prefix of the tower's tensors in this program.
pub const TOWER: &str = "visual";
/// Ids of released models, for files that omit them.
const IDS: MediaIds = MediaIds { image: 151_655, video: 151_656, start: 151_652, end: 151_653, pad: 151_654 };
/// Base of the tower's rotary frequencies. Released files have no key for it.
pub const TOWER_ROPE_THETA: f64 = 1e4;

/// Returns the settings of the vision tower.
pub fn vision<'a>(root: &Node<'a>) -> Result<Node<'a>> {
    root.child("vision_config")?
        .ok_or_else(|| Error::input(root.at("vision_config"), "nothing", "an object with the vision tower's settings"))
}

/// Reads `mrope_section`, the numbers of rotary frequencies for time, height and width.
pub fn section(rope: &Node<'_>, default: Option<[usize; 3]>, head_dim: usize) -> Result<[usize; 3]> {
    const KEY: &str = "mrope_section";
    let section = rope.list(KEY, default.as_ref().map(|section| &section[..]))?;
    let section: [usize; 3] = section.try_into().map_err(|found: Vec<usize>| {
        Error::input(rope.at(KEY), format!("{} numbers", found.len()), "three numbers: time, height, width")
    })?;
    let (sum, half) = (section.iter().sum::<usize>(), head_dim / 2);
    let expected = format!("a sum of {half}, half of the head dimension");
    rope.require(KEY, sum, sum == half || !rope.has(KEY), &expected).map(|()| section)
}

/// Reads the ids of the tokens of images and videos. Missing ones have the defaults of the Hugging Face classes, because
/// their save functions omit keys that equal the default.
pub fn ids(root: &Node<'_>, text: &TextConfig) -> Result<MediaIds> {
    let id = |key: &str, default: u32| root.usize(key, Some(default as usize)).map(|id| id as u32);
    let ids = MediaIds {
        image: id("image_token_id", IDS.image)?,
        video: id("video_token_id", IDS.video)?,
        start: id("vision_start_token_id", IDS.start)?,
        end: id("vision_end_token_id", IDS.end)?,
        pad: id("vision_token_id", IDS.pad)?,
    };
    let named = ids.named();
    for (i, (key, id)) in named.iter().enumerate() {
        let inside = (*id as usize) < text.vocab_size;
        root.require(key, id, inside, &format!("an id below vocab_size {}", text.vocab_size))?;
        if let Some((other, _)) = named[..i].iter().find(|(_, other)| other == id) {
            root.require(key, id, false, &format!("another id than that of {other}"))?;
        }
    }
    Ok(ids)
}

/// Reads the sizes of patches, which must be `patch_size` pixels wide and two frames deep.
pub fn grid(vision: &Node<'_>, patch_size: usize) -> Result<PatchGrid> {
    for (key, expected) in [("in_chans", 3), ("in_channels", 3), ("temporal_patch_size", 2), ("patch_size", patch_size)]
    {
        let found = vision.usize(key, Some(expected))?;
        let why = if expected == 3 { "3: red, green, blue".to_owned() } else { expected.to_string() };
        vision.require(key, found, found == expected, &why)?;
    }
    if let Some(rope) = vision.child("rope_parameters")? {
        let theta = rope.f64("rope_theta", Some(TOWER_ROPE_THETA))?;
        rope.require("rope_theta", theta as usize, theta == TOWER_ROPE_THETA, "10000")?;
    }
    Ok(PatchGrid { patch_size, temporal_patch_size: 2, merge_size: vision.usize("spatial_merge_size", Some(2))? })
}

/// Returns an error if the sizes of the tower do not fit each other and the decoder.
pub fn check(vision: &Node<'_>, tower: &TowerConfig, text: &TextConfig) -> Result<()> {
    let wants = format!("the decoder's hidden_size {}", text.hidden_size);
    let out = tower.out_hidden_size;
    vision.require("out_hidden_size", out, out == text.hidden_size, &wants)?;
    let (width, heads) = (tower.hidden_size, tower.num_heads);
    vision.require("num_heads", heads, width.is_multiple_of(heads), "a divisor of hidden_size")?;
    let by_four = tower.head_dim().is_multiple_of(4);
    vision.require("num_heads", heads, by_four, "a head dimension that is a multiple of 4")
}

/// Returns the sizes of the text part and of the tower that the weights must have.
pub fn size_checks(config: &ModelConfig) -> Vec<SizeCheck> {
    let towers = config.media.iter().flat_map(|MediaConfig { tower, grid, .. }| {
        let (mlp, merger, side) = match tower.kind {
            TowerKind::Windowed { .. } => ("visual.blocks.0.mlp.gate_proj.weight", "visual.merger.mlp.0.weight", None),
            TowerKind::DeepStack { grid_side, .. } => {
                ("visual.blocks.0.mlp.linear_fc1.weight", "visual.merger.linear_fc1.weight", Some(grid_side))
            }
        };
        let merged = tower.hidden_size.saturating_mul(grid.merge_size * grid.merge_size);
        const POSITIONS: &str = "/vision_config/num_position_embeddings";
        let positions = side.map(|side| (POSITIONS, side * side, Measured::Side("visual.pos_embed.weight", 0)));
        [
            ("/vision_config/depth", tower.depth, Measured::Layers("visual.blocks.")),
            ("/vision_config/hidden_size", tower.hidden_size, Measured::Side(mlp, 1)),
            ("/vision_config/intermediate_size", tower.intermediate_size, Measured::Side(mlp, 0)),
            ("/vision_config/hidden_size x spatial_merge_size^2", merged, Measured::Side(merger, 1)),
        ]
        .into_iter()
        .chain(positions)
    });
    let mut sizes = dense::size_checks(&config.text);
    sizes.extend(towers.map(|(key, declared, of)| SizeCheck { key, declared, of }));
    sizes
}
