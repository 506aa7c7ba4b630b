//! Loads the model, and runs the server, a replay or a chat on it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, RwLock};

use tokio::sync::watch;

use super::app::{App, now};
use super::engine_client::{Command, EngineClient};
use super::engine_thread::{Core, EngineThread};
use super::http;
use super::media::MediaRules;
use super::metrics::Metrics;
use super::page::{Compare, Page};
use super::record::Recorder;
use super::replay::{Replayed, replay};
use super::routes::{Keys, router};
use super::sampling::Defaults;
use crate::config::ServeConfig;
use crate::device::{Device, Kind, Plan, Region};
use crate::engine::{Engine, EngineConfig, Prompt, Request, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::eval::fits;
use crate::identity;
use crate::image::{Grid, ImageInput, Processor};
use crate::machine::Machine;
use crate::model::{Model, ModelConfig};
use crate::ops::attend::BLOCK;
use crate::ops::sample::{LogprobsMode, SamplingParams};
use crate::tensor::DType;
use crate::text::Chat;
use crate::train::plan;

/// Settings that an error message suggests if the server needs too much memory.
const LOWER: &str = "max_model_len, max_num_seqs, max_num_batched_tokens, num_kv_blocks or image_max_pixels";
/// Maximum bytes of the KV cache on the CPU unless `num_kv_blocks` is set.
const CPU_CACHE: usize = 4 << 30;
/// Number of choices that may wait in addition to those that run.
const QUEUE: usize = 1024;

/// Settings of a server.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Model directory.
    pub model: PathBuf,
    /// The model as the user named it.
    pub root: String,
    /// Engine settings.
    pub config: ServeConfig,
    /// Names of the model for requests. Empty uses `root`.
    pub names: Vec<String>,
    /// Keys of clients. Without keys, every client is accepted.
    pub api_keys: Vec<String>,
    /// Key of administrators.
    pub admin_api_key: Option<String>,
    /// True if reasoning is separated from answers.
    pub has_reasoning_parser: bool,
    /// Meaning of the log-probs of answers.
    pub logprobs_mode: LogprobsMode,
    /// Domains from which pictures may be loaded.
    pub allowed_media_domains: Vec<String>,
    /// Folder below which `file://` pictures may be loaded.
    pub allowed_local_media_path: Option<PathBuf>,
    /// File to which requests are recorded.
    pub record_requests: Option<PathBuf>,
    /// Address of a second server for the page.
    pub compare_url: Option<String>,
}

/// A loaded model that can answer requests.
pub struct Server {
    pub(super) app: Arc<App>,
    core: Core,
    inbox: Receiver<Command>,
    options: Options,
    page: Page,
}

impl Server {
    /// Checks the options, plans the memory and loads the model.
    pub fn prepare(options: Options, machine: &Machine) -> Result<Server> {
        let (dir, config) = (&options.model, &options.config);
        let media = MediaRules::new(&options.allowed_media_domains, options.allowed_local_media_path.clone())?;
        let recorder = options.record_requests.as_deref().map(Recorder::open).transpose()?;
        let page = Page {
            has_key: !options.api_keys.is_empty(),
            reasoning_parser: if options.has_reasoning_parser { "qwen3" } else { "none" },
            compare: options.compare_url.as_deref().map(Compare::new).transpose()?.map(Arc::new),
        };
        let processor = Processor::load(dir)?.within(config.image_min_pixels, config.image_max_pixels);
        let (model_config, chat) = (ModelConfig::load(&dir.join("config.json"))?, Chat::load(dir)?);
        let allowed = (!config.all_ids).then(|| allowed_ids(&model_config, &chat));
        let (core, limits, dtype) = core(dir, config, &model_config, &processor, allowed.as_deref(), machine)?;
        let (engine, inbox) = EngineClient::new(limits.max_num_seqs + QUEUE, limits.vision_rows);
        let kind = if dtype == DType::Bf16 { "bf16" } else { "f32" };
        let pixels = format!("{} to {} pixels", processor.min_pixels, processor.max_pixels);
        let app = App {
            defaults: Defaults {
                vocab_size: model_config.vocab_size,
                eos_token_ids: stop_token_ids(dir, &[chat.ids.im_end, chat.ids.endoftext])?,
                logprobs_mode: options.logprobs_mode,
            },
            chat,
            processor,
            config: model_config,
            media,
            engine,
            metrics: Metrics::new(),
            names: if options.names.is_empty() { vec![options.root.clone()] } else { options.names.clone() },
            root: options.root.clone(),
            max_model_len: limits.max_model_len,
            has_reasoning_parser: options.has_reasoning_parser,
            created: now(),
            recorder,
            arithmetic: format!("{} {kind} {pixels}", core.dev.arithmetic()),
            weights: RwLock::new(identity::of(dir)?),
        };
        Ok(Server { app: Arc::new(app), core, inbox, options, page })
    }

    /// Answers requests on `listener` until a stop is requested; then finishes the requests in flight.
    pub fn serve(self, listener: std::net::TcpListener, machine: &Machine) -> Result<()> {
        let runtime = (machine.runtime)()?;
        let hash = |key: &String| blake3::hash(key.as_bytes());
        let keys = Keys {
            api: self.options.api_keys.iter().map(hash).collect(),
            admin: self.options.admin_api_key.as_ref().map(hash),
        };
        let routes = router(self.app.clone(), keys, self.page.clone());
        let (shutdown, is_shutdown) = watch::channel(false);
        let listener = http::listener(&runtime, listener)?;
        let connections = runtime.spawn(http::serve(listener, routes, is_shutdown));
        machine.observer.patient(true);
        let done = self.run_engine(machine);
        let _ = shutdown.send(true);
        http::end(&runtime, connections);
        done
    }

    /// Answers the requests recorded in `file` again, and compares the answers.
    pub fn replay(self, file: &Path, machine: &Machine) -> Result<Replayed> {
        let (app, file) = (self.app.clone(), file.to_owned());
        self.with_client(machine, async move { replay(&app, &file).await })
    }

    /// Runs `client` beside the engine, until it ends.
    pub(super) fn with_client<T: Send + 'static>(
        self,
        machine: &Machine,
        client: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let runtime = (machine.runtime)()?;
        let app = self.app.clone();
        let client = runtime.spawn(async move {
            let done = client.await;
            app.engine.finish();
            done
        });
        self.run_engine(machine)?;
        runtime.block_on(client).map_err(|e| Error::Failed(format!("a client of the engine: {e}")))?
    }

    fn run_engine(self, machine: &Machine) -> Result<()> {
        let Server { app, core, inbox, options, .. } = self;
        EngineThread::new(core, &app, inbox, options.model).run(machine.observer)
    }
}

/// Plans the memory, then loads the model in `dir` and creates its engine. Also returns the engine's limits and the data
/// type of the weights.
fn core(
    dir: &Path,
    config: &ServeConfig,
    model_config: &ModelConfig,
    processor: &Processor,
    allowed: Option<&[u32]>,
    machine: &Machine,
) -> Result<(Core, EngineConfig, DType)> {
    let dtype = DType::of(config.dtype, machine.target.kind);
    let limits = limits(config, model_config, processor, machine.target.kind, dtype)?;
    let upload = |dev: &mut Device| allowed.map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose();
    let [large, small] = [true, false].map(|is_large| largest(&limits, processor, model_config, is_large));
    let (large, small) = (large?, small?);
    let budget = machine.target.memory.filter(|_| config.num_kv_blocks.is_none());
    let count = |dtype: DType| -> Result<(EngineConfig, Plan)> {
        let mut counted = Device::count_for(machine.target);
        let model = Model::empty(&mut counted, model_config.clone(), dtype)?;
        let engine_config = EngineConfig { allowed: upload(&mut counted)?, ..limits };
        let (engine_config, memory) =
            engine_config.fitted(&model, &mut counted, std::slice::from_ref(&large), budget)?;
        let mut engine = Engine::new(&model, &mut counted, engine_config)?;
        engine.plan(&model, &mut counted, std::slice::from_ref(&small))?;
        engine.release(&mut counted);
        Ok((engine_config, memory.max(&counted.high_water())))
    };
    let (limits, memory) = fits::within(machine.target, dtype, LOWER, count)?;
    machine.observer.note(&format!("serve: {}", plan::line(&memory)));
    let mut dev = (machine.device)(&memory)?;
    // A signal does not end passes early, because requests in flight are finished.
    drop(dev.take_stop_flag());
    let model = Model::load_shown(&mut dev, dir, dtype, machine.observer)?;
    let limits = EngineConfig { allowed: upload(&mut dev)?, ..limits };
    let engine = Engine::new(&model, &mut dev, limits)?;
    Ok((Core { dev, model, engine }, limits, dtype))
}

fn limits(
    config: &ServeConfig,
    model: &ModelConfig,
    processor: &Processor,
    kind: Kind,
    dtype: DType,
) -> Result<EngineConfig> {
    let max_model_len = config.max_model_len.unwrap_or(model.max_position_embeddings);
    if max_model_len > model.max_position_embeddings {
        let expected = format!("at most {}, max_position_embeddings of the model", model.max_position_embeddings);
        return Err(Error::input("max_model_len", max_model_len.to_string(), expected));
    }
    let one = max_model_len.div_ceil(BLOCK);
    let key_bytes = 2 * model.num_hidden_layers * model.num_key_value_heads * model.head_dim() * dtype.size();
    let most = if kind == Kind::Cuda { usize::MAX } else { CPU_CACHE / (key_bytes * BLOCK) };
    let blocks = one.saturating_mul(config.max_num_seqs).min(most).max(one);
    let picture = largest_picture(processor, max_model_len);
    Ok(EngineConfig {
        max_num_seqs: config.max_num_seqs,
        max_num_batched_tokens: config.max_num_batched_tokens,
        num_kv_blocks: Some(config.num_kv_blocks.unwrap_or(blocks)),
        vision_rows: picture.max(2 * config.max_num_batched_tokens),
        enable_prefix_caching: config.enable_prefix_caching,
        keep_logits: true,
        ..EngineConfig::new(max_model_len)
    })
}

/// Returns the number of tokens of the largest picture that fits into a prompt.
fn largest_picture(processor: &Processor, max_model_len: usize) -> usize {
    let side = u64::from(processor.patch_size * processor.merge_size);
    (processor.max_pixels.div_ceil(side * side) as usize).clamp(1, max_model_len)
}

/// Returns a request that needs the most memory: with as many of the largest pictures, or of the smallest, as fit into
/// the engine's cache.
fn largest(limits: &EngineConfig, processor: &Processor, model: &ModelConfig, is_large: bool) -> Result<Request> {
    let merge = processor.merge_size;
    let [h, w] = match is_large {
        true => {
            let side = (largest_picture(processor, limits.max_model_len) as f64).sqrt().ceil() as u32;
            [side * merge, side * merge]
        }
        false => processor.grid(1, 1)?,
    };
    let grid = Grid::picture(h as u16, w as u16);
    let picture = Arc::new(ImageInput::blank(grid, model.vision_config.patch_size));
    let count = limits.vision_rows / picture.tokens(merge).max(1);
    let prompt = Prompt { pixels: vec![picture; count], ..Prompt::text(vec![0]) };
    Ok(Request {
        prompt: Arc::new(prompt),
        n: limits.max_num_seqs,
        sampling: SamplingParams::default(),
        max_tokens: 1,
        stop_token_ids: Arc::from([]),
        noise: 0,
        first_rollout: 0,
    })
}

/// Opens the listening socket.
pub fn listen(host: &str, port: u16) -> Result<(std::net::TcpListener, SocketAddr)> {
    let failed = |e: std::io::Error| Error::input("--host and --port", format!("{host}:{port} ({e})"), "a free port");
    let listener = std::net::TcpListener::bind((host, port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
