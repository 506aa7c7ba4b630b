//! Writes TensorBoard event files: TFRecord framing around four protobuf messages. They are encoded by hand in about a
//! hundred lines, because the existing crates are unmaintained or depend on a protobuf stack.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use omr_base::error::{Error, Result};

/// Name of the metric that holds the time at which a step was logged, in seconds since 1970.
pub const WALL_TIME: &str = "timing_s/wall_time";

/// Writes scalars of complete steps into one event file.
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Creates `dir/events.out.tfevents.0.omr`, replacing an existing file; on resume, earlier steps are written again
    /// from `metrics.jsonl`. `wall_time` is the time of the first event, in seconds since 1970.
    pub fn create(dir: &Path, wall_time: f64) -> Result<EventWriter> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = dir.join("events.out.tfevents.0.omr");
        let file = File::create(&path).map_err(Error::io(&path))?;
        let mut writer = EventWriter { path, file };
        let mut event = Vec::new();
        fixed(&mut event, 1, &wall_time.to_le_bytes());
        bytes(&mut event, 3, b"brain.Event:2");
        writer.record(&event)?;
        Ok(writer)
    }

    /// Writes one event with every numeric metric of `metrics` at its `step`.
    pub fn step(&mut self, metrics: &Map<String, Value>) -> Result<()> {
        let step = metrics.get("step").and_then(|v| v.as_u64()).unwrap_or(0);
        let mut summary = Vec::new();
        for (tag, value) in metrics {
            let Some(value) = value.as_f64().filter(|_| tag != "step" && tag != WALL_TIME) else { continue };
            let mut scalar = Vec::new();
            bytes(&mut scalar, 1, tag.as_bytes());
            fixed(&mut scalar, 2, &(value as f32).to_le_bytes());
            bytes(&mut summary, 1, &scalar);
        }
        let mut event = Vec::new();
        let wall_time = metrics.get(WALL_TIME).and_then(Value::as_f64).unwrap_or(0.0);
        fixed(&mut event, 1, &wall_time.to_le_bytes());
        key(&mut event, 2, 0);
        varint(&mut event, step);
        bytes(&mut event, 5, &summary);
        self.record(&event)
    }

    fn record(&mut self, data: &[u8]) -> Result<()> {
        let len = (data.len() as u64).to_le_bytes();
        let out = [&len[..], &masked_crc(&len).to_le_bytes(), data, &masked_crc(data).to_le_bytes()].concat();
        self.file.write_all(&out).map_err(Error::io(&self.path))
    }
}

/// Computes TFRecord's masked CRC-32C (tensorflow/core/lib/hash/crc32c.h).
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn fixed(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, if value.len() == 8 { 1 } else { 5 });
    out.extend_from_slice(value);
}

fn bytes(out: &mut Vec<u8>, field: u64, data: &[u8]) {
    key(out, field, 2);
    varint(out, data.len() as u64);
    out.extend_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The CRC-32C check value of "123456789" is 0xe3069283 (RFC 3720 B.4 lists the polynomial's vectors).
    #[test]
    fn the_crc_is_masked_as_tfrecord_masks_it() {
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
