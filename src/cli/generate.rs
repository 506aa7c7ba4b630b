//! `omr generate`: one answer, streamed, or a file of them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::args::repository;
use super::{Context, Overrides};
use crate::config::GenerateConfig;
use crate::data::form::{RawImage, RowContext};
use crate::data::{self, folder::Folder, json::jsonl, read::row_from};
use crate::device::{Device, Region};
use crate::engine::{Engine, EngineConfig, Event, Output, Prompt, Request, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::files;
use crate::hub::Kind;
use crate::image::Processor;
use crate::model::{Model, ModelConfig};
use crate::ops::attend::BLOCK;
use crate::ops::sample::SamplingParams;
use crate::tensor::{DType, Tensor};
use crate::text::{Chat, Message};

/// Arguments of `omr generate`.
#[derive(clap::Args)]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Picture of the question; give several in order. `<image>` in the text marks their places, else they come first
    #[arg(long, value_name = "FILE", requires = "prompt")]
    image: Vec<PathBuf>,
    /// The question
    #[arg(long, value_name = "TEXT", conflicts_with = "jsonl", required_unless_present_any = ["jsonl", "print_config"])]
    prompt: Option<String>,
    /// File of questions, a line each: {"id", "messages" or "prompt", "images"?}
    #[arg(long, value_name = "FILE", requires = "out")]
    jsonl: Option<PathBuf>,
    /// Where the lines go, each with `response`, `token_ids` and `finish_reason`
    #[arg(long, value_name = "FILE", requires = "jsonl")]
    out: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
}

/// Answers one question on stdout as it is written, or a file of questions into another.
pub fn run(args: &Args, context: &Context) -> Result<()> {
    let Some(config) = args.overrides.load::<GenerateConfig>(None)? else { return Ok(()) };
    let model = repository(&args.model, Kind::Model, "--model")?;
    let reader = Reader::open(&model, &config)?;
    match (&args.prompt, &args.jsonl, &args.out) {
        (Some(text), _, _) => {
            let prompt = reader.question(text, &args.image)?;
            Answers::prepare(&model, &config, reader, vec![prompt], context)?.stream()
        }
        (None, Some(file), Some(out)) => {
            files::writable(out)?;
            let (lines, prompts) = reader.lines(file)?;
            let responses = Answers::prepare(&model, &config, reader, prompts, context)?.all(context)?;
            write(out, lines, responses)
        }
        _ => Err(Error::input("omr generate", "neither --prompt nor --jsonl with --out", "one of them")),
    }
}

/// A line of questions as it stands.
type Line = Map<String, Value>;

/// What turns a question into a prompt.
struct Reader {
    config: ModelConfig,
    chat: Chat,
    processor: Processor,
    system_prompt: Option<String>,
}

impl Reader {
    fn open(dir: &Path, config: &GenerateConfig) -> Result<Reader> {
        if !dir.is_dir() {
            return Err(Error::input("--model", dir.display().to_string(), "a model directory"));
        }
        let mut processor = Processor::load(dir)?;
        if let Some(min) = config.image_min_pixels {
            processor.min_pixels = min as u64;
        }
        if let Some(max) = config.image_max_pixels {
            processor.max_pixels = max as u64;
        }
        Ok(Reader {
            config: ModelConfig::load(&dir.join("config.json"))?,
            chat: Chat::load(dir)?,
            processor,
            system_prompt: config.system_prompt.clone(),
        })
    }

    fn question(&self, text: &str, images: &[PathBuf]) -> Result<Arc<Prompt>> {
        let read = |path: &PathBuf| {
            let bytes = files::read(path).map_err(Error::io(path))?;
            Ok(RawImage { bytes: Some(bytes.into()), path: Some(path.display().to_string()) })
        };
        let images = images.iter().map(read).collect::<Result<Vec<_>>>()?;
        let fields = Map::from_iter([("prompt".to_owned(), json!(text))]);
        self.prompt(fields, Some(images), Path::new("."), 0, "--prompt".to_owned())
    }

    /// All lines of a file, as they stand and as prompts. Pictures are files in the file's folder, or `data:` urls.
    fn lines(&self, file: &Path) -> Result<(Vec<Line>, Vec<Arc<Prompt>>)> {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (mut lines, mut prompts) = (Vec::new(), Vec::new());
        jsonl(file, usize::MAX, |at, fields| {
            let fields = fields?;
            let place = format!("{} line {}", file.display(), at.number);
            prompts.push(self.prompt(fields.clone(), None, folder, at.index, place)?);
            lines.push(fields);
            Ok(())
        })?;
        if lines.is_empty() {
            return Err(Error::input(file.display().to_string(), "no questions", "a line for each"));
        }
        Ok((lines, prompts))
    }

    fn prompt(
        &self,
        mut fields: Line,
        images: Option<Vec<RawImage>>,
        folder: &Path,
        index: usize,
        place: String,
    ) -> Result<Arc<Prompt>> {
        let mut system = None;
        // A plain text is the `problem` of a row: pictures it does not mark come first.
        if let Some(Value::String(text)) = fields.get("prompt").cloned() {
            fields.remove("prompt");
            fields.insert("problem".to_owned(), json!(text));
            system = self.system_prompt.as_deref();
        }
        let folder = Folder::open(folder)?;
        let at = RowContext { folder: &folder, dataset: "generate", file: "generate", index, place: place.clone() };
        let mut row = row_from(fields, images, &at)?;
        if let Some(text) = system {
            row.messages.insert(0, Message::text("system", text));
        }
        let prompt = data::prompt(&row, &self.chat, &self.processor)?;
        let prompt = Prompt::new(&self.config, &prompt.ids, &prompt.images).map_err(|e| e.within(&place))?;
        Ok(Arc::new(prompt.named(&place)))
    }
}

/// A model in memory with its questions.
struct Answers {
    reader: Reader,
    dev: Device,
    model: Model,
    engine: Engine,
    requests: Vec<Request>,
}

/// One answer: text, ids, why it ended.
struct Response {
    text: String,
    output: Output,
}

impl Answers {
    fn prepare(
        dir: &Path,
        config: &GenerateConfig,
        reader: Reader,
        prompts: Vec<Arc<Prompt>>,
        context: &Context,
    ) -> Result<Answers> {
        let dtype = DType::of(config.dtype, context.kind());
        let stop: Arc<[u32]> = match config.ignore_eos {
            true => Arc::from([]),
            false => stop_token_ids(dir, &[reader.chat.ids.im_end, reader.chat.ids.endoftext])?,
        };
        let sampling = SamplingParams {
            temperature: config.temperature as f32,
            top_k: u32::try_from(config.top_k).unwrap_or(0),
            top_p: config.top_p as f32,
            min_p: config.min_p as f32,
        };
        let request = |(i, prompt): (usize, Arc<Prompt>)| Request {
            prompt,
            n: 1,
            sampling,
            max_tokens: config.max_tokens,
            stop_token_ids: stop.clone(),
            noise: i as u32,
            first_rollout: 0,
        };
        let requests: Vec<Request> = prompts.into_iter().enumerate().map(request).collect();
        let limits = limits(config, &reader.config, &requests);
        let allowed = (!config.all_ids).then(|| allowed_ids(&reader.config, &reader.chat));

        let mut counted = Device::count_for(context.target());
        let model = Model::empty(&mut counted, reader.config.clone(), dtype)?;
        let engine_config = EngineConfig { allowed: upload(&mut counted, allowed.as_deref())?, ..limits };
        Engine::new(&model, &mut counted, engine_config)?.plan(&model, &mut counted, &requests)?;

        let mut dev = context.device(&counted.high_water())?;
        let model = Model::load(&mut dev, dir, dtype)?;
        let engine_config = EngineConfig { allowed: upload(&mut dev, allowed.as_deref())?, ..limits };
        let engine = Engine::new(&model, &mut dev, engine_config)?;
        Ok(Answers { reader, dev, model, engine, requests })
    }

    /// Writes the only answer to stdout, token by token.
    fn stream(mut self) -> Result<()> {
        let tokenizer = &self.reader.chat.tokenizer;
        let mut stream = tokenizer.decode_stream(true);
        let mut out = super::Stdout::lock();
        let mut put = |text: &str| match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Error::Stopped),
            other => other.map_err(Error::io("standard output")),
        };
        self.engine.generate(&self.model, &mut self.dev, &self.requests, |event| match event {
            _ if super::signal::stop_requested() => Err(Error::Stopped),
            Event::Token { token_id, .. } => put(&stream.push(tokenizer, token_id)),
            Event::Finished(_) => Ok(()),
        })?;
        put(&format!("{}\n", stream.finish()))
    }

    /// Answers all questions, in their order.
    fn all(mut self, context: &Context) -> Result<Vec<Response>> {
        let observer = context.observer();
        observer.begin("generate", "answers", self.requests.len() as u64, 0);
        let (begun, mut done, mut tokens) = (std::time::Instant::now(), 0, 0u64);
        let outputs = self.engine.generate(&self.model, &mut self.dev, &self.requests, |event| {
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            match event {
                Event::Token { .. } => tokens += 1,
                Event::Finished(_) => {
                    done += 1;
                    observer.step(done, &[("tok/s", tokens as f64 / begun.elapsed().as_secs_f64())]);
                }
            }
            Ok(())
        })?;
        observer.end();
        let tokenizer = &self.reader.chat.tokenizer;
        let response = |output: Output| Response { text: tokenizer.decode(&output.token_ids, true), output };
        Ok(outputs.into_iter().map(response).collect())
    }
}

/// The engine's limits: no larger than these requests can use.
fn limits(config: &GenerateConfig, model: &ModelConfig, requests: &[Request]) -> EngineConfig {
    let max_model_len = config.max_model_len.unwrap_or(model.max_position_embeddings);
    let mut blocks: Vec<usize> = requests
        .iter()
        .map(|r| r.prompt.token_ids.len().saturating_add(r.max_tokens).min(max_model_len).div_ceil(BLOCK))
        .collect();
    blocks.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
    let needed = blocks.iter().take(config.max_num_seqs).sum::<usize>().max(1);
    let mut images: Vec<_> = requests.iter().flat_map(|r| &r.prompt.images).collect();
    images.sort_unstable_by_key(|image| image.key);
    images.dedup_by_key(|image| image.key);
    let largest = images.iter().map(|image| image.rows).max().unwrap_or(0);
    let together = images.iter().map(|image| image.rows).sum::<usize>();
    EngineConfig {
        max_num_seqs: config.max_num_seqs.min(requests.len().max(1)),
        max_num_batched_tokens: config.max_num_batched_tokens,
        max_model_len,
        num_kv_blocks: Some(config.num_kv_blocks.unwrap_or(needed)),
        vision_rows: together.min(largest.max(2 * config.max_num_batched_tokens)),
        enable_prefix_caching: config.enable_prefix_caching,
        draft_rows: 0,
        allowed: None,
        seed: config.seed,
        step: 0,
    }
}

fn upload(dev: &mut Device, bitmap: Option<&[u32]>) -> Result<Option<Tensor>> {
    bitmap.map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose()
}

fn write(out: &Path, lines: Vec<Line>, responses: Vec<Response>) -> Result<()> {
    files::write_with(out, |w| {
        for (mut line, Response { text, output }) in lines.into_iter().zip(responses) {
            line.insert("response".to_owned(), json!(text));
            line.insert("token_ids".to_owned(), json!(output.token_ids));
            line.insert("finish_reason".to_owned(), json!(output.finish_reason.as_str()));
            writeln!(w, "{}", Value::Object(line))?;
        }
        Ok::<(), std::io::Error>(())
    })
}
