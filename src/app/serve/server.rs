//! Loads the model, and runs the server, a replay or a chat on it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use super::app::{App, Options, now};
use super::engine_client::{Command, EngineClient};
use super::engine_thread::{Core, EngineThread};
use super::http;
use super::media::MediaRules;
use super::metrics::Metrics;

use super::record::Recorder;
use super::replay::{Replayed, replay};
use super::routes::router;
use super::sizes::{self, Needs};
use omr_base::error::{Error, Result};
use omr_base::hub::base_model::{self, ADAPTER_CONFIG};
use omr_base::identity;
use omr_data::image::{JPEG_DECODER, Processor};
use omr_data::text::Chat;
use omr_model::engine::{Engine, EngineConfig, allowed_ids};
use omr_model::llm::fits;
use omr_model::nn::adapter::adapter_files::StoredAdapter;
use omr_model::nn::{Model, ModelConfig, weights};
use omr_runtime::device::{Device, Plan, Region};
use omr_runtime::machine::Machine;
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::tensor::DType;

/// Settings that an error message suggests if the server needs too much memory.
const LOWER: &str = "max_model_len, max_num_seqs, max_num_batched_tokens, num_kv_blocks or image_max_pixels";
/// Maximum time that the requests in flight of a server have to finish after the first stop request.
const DRAIN: Duration = Duration::from_secs(30);

/// A loaded model that can answer requests.
pub struct Server {
    pub(super) app: Arc<App>,
    core: Core,
    inbox: Receiver<Command>,
    drain: Duration,
}

/// A server without its model. It can parse requests.
pub struct UnloadedServer {
    /// State of the server.
    pub app: Arc<App>,
    /// The requests that the model will answer, if they are known. The engine is then no larger than they need.
    pub needs: Option<Needs>,
    /// Maximum time that the requests in flight have to finish after a stop request.
    pub drain: Duration,
    limits: EngineConfig,
    inbox: Receiver<Command>,
}

impl UnloadedServer {
    /// Checks the options and reads everything besides the weights.
    pub fn new(options: Options, machine: &Machine) -> Result<UnloadedServer> {
        let (dir, config) = (&options.model, &options.config);
        let media = MediaRules::new(&options.allowed_media_domains, options.allowed_local_media_path.clone())?;
        let names = if options.names.is_empty() { vec![options.root.clone()] } else { options.names.clone() };
        let mut files = identity::paths(dir)?;
        if let Some((name, adapter)) = &options.adapter {
            let wrong = |found, expected| Err(Error::input("--lora-modules", found, expected));
            if names.contains(name) {
                return wrong(format!("{name}, a name of the model itself"), "another name");
            }
            if base_model::of(dir)?.is_some() {
                return wrong(format!("{name} for {}, which is an adapter", dir.display()), "a base model as MODEL");
            }
            files.extend([ADAPTER_CONFIG, weights::ADAPTER].map(|file| adapter.join(file)));
        }
        let recorder = options.record_requests.as_deref().map(Recorder::open).transpose()?;

        let model_config = ModelConfig::load(&dir.join("config.json"))?.quantized(config.quantization.as_ref())?;
        let chat = Chat::load(dir, &model_config.chat())?;
        let processor = Processor::of_model(dir, chat.media, &config.images)?;
        let allowed = (!config.all_ids).then(|| allowed_ids(&model_config, &chat));
        let limits = sizes::limits(config, &model_config, processor.as_ref(), machine.target.kind)?;
        let (engine, inbox) = EngineClient::new(config.max_num_seqs, limits.vision_rows);
        let app = App {
            allowed,
            chat,
            processor,
            config: model_config,
            media,
            engine,
            metrics: Metrics::new(),
            names,
            max_model_len: limits.max_model_len,
            created: now(),
            recorder,
            arithmetic: OnceLock::new(),
            weights: RwLock::new(identity::of_files(&files)?),
            options,
        };
        Ok(UnloadedServer { app: Arc::new(app), needs: None, drain: DRAIN, limits, inbox })
    }

    /// Plans the memory and loads the model.
    pub fn load(self, machine: &Machine) -> Result<Server> {
        let dtype = DType::of(self.app.options.config.dtype, machine.target.kind);
        let core = self.core(dtype, machine)?;
        let UnloadedServer { app, drain, inbox, .. } = self;
        let mut kind = if dtype == DType::Bf16 { "bf16" } else { "f32" }.to_owned();
        kind.extend(app.config.quantization.as_ref().map(|quantization| format!(" {}", quantization.describe())));
        let bounds = |p: &Processor| format!(" {} to {} pixels {JPEG_DECODER}", p.min_pixels, p.max_pixels);
        let images = app.processor.as_ref().map_or_else(String::new, bounds);
        // Nobody else sets it.
        let _ = app.arithmetic.set(format!("{} {kind}{images}", core.dev.arithmetic()));
        Ok(Server { app, core, inbox, drain })
    }

    /// Plans the memory, then loads the model and creates its engine.
    fn core(&self, dtype: DType, machine: &Machine) -> Result<Core> {
        let (app, options) = (&self.app, &self.app.options);
        let num_kv_blocks = options.config.num_kv_blocks;
        let (mut limits, mut planned) = match &self.needs {
            Some(needs) => (needs.narrowed(self.limits), needs.largest(&self.limits, &app.config)),
            None => (self.limits, sizes::largest(&self.limits, app.processor.as_ref(), &app.config)?),
        };
        limits.num_kv_blocks = num_kv_blocks.or(limits.num_kv_blocks);
        let one = limits.max_model_len.div_ceil(BLOCK);
        if let Some(blocks) = num_kv_blocks.filter(|blocks| *blocks < one) {
            let expected = format!("at least {one}, the blocks of max_model_len, which is {}", limits.max_model_len);
            return Err(Error::input("num_kv_blocks", blocks.to_string(), expected));
        }
        let adapter = options.adapter.as_ref().map(|(_, dir)| StoredAdapter::open(dir)).transpose()?;
        if let Some(adapter) = &adapter {
            adapter.check_base(&options.model)?;
            let prompts = planned.iter_mut().flatten().map(|request| Arc::make_mut(&mut request.prompt));
            prompts.for_each(|prompt| prompt.of_base = true);
        }
        let attach = |dev: &mut Device, mut model: Model| -> Result<Model> {
            adapter.as_ref().map_or(Ok(()), |adapter| adapter.attach(dev, &mut model))?;
            Ok(model)
        };
        let upload = |dev: &mut Device| {
            app.allowed.as_ref().map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose()
        };
        let budget = machine.target.memory.filter(|_| num_kv_blocks.is_none());
        let count = |dtype: DType| -> Result<(EngineConfig, Plan)> {
            let mut counted = Device::count_for(machine.target);
            let model = Model::empty_of(&mut counted, &options.model, app.config.clone(), dtype)?;
            let model = attach(&mut counted, model)?;
            let limits = EngineConfig { allowed: upload(&mut counted)?, ..limits };
            let (limits, memory) = limits.fitted(&model, &mut counted, &planned[0], &Plan::default(), budget)?;
            planned[1..].iter().try_for_each(|requests| limits.planned(&model, &mut counted, requests))?;
            Ok((limits, memory.max(&counted.high_water())))
        };
        let (limits, memory) = fits::within(machine.target, dtype, LOWER, count)?;
        tracing::debug!("{}", memory.line());
        let mut dev = (machine.device)(&memory)?;
        if !self.drain.is_zero() {
            // A signal does not end passes early, because requests in flight are finished.
            drop(dev.take_stop_flag());
        }
        let model = Model::load_shown(&mut dev, &options.model, app.config.clone(), dtype, machine.observer)?;
        let model = attach(&mut dev, model)?;
        let limits = EngineConfig { allowed: upload(&mut dev)?, ..limits };
        let engine = Engine::new(&model, &mut dev, limits)?;
        Ok(Core { dev, model, engine })
    }
}

impl Server {
    /// Checks the options, plans the memory and loads the model.
    pub fn prepare(options: Options, machine: &Machine) -> Result<Server> {
        UnloadedServer::new(options, machine)?.load(machine)
    }

    /// Answers requests on `listener` until a stop is requested; then finishes the requests in flight.
    pub fn serve(self, listener: std::net::TcpListener, machine: &Machine) -> Result<()> {
        let runtime = (machine.runtime)()?;
        let routes = router(self.app.clone());
        http::serve_beside(&runtime, listener, routes, || {
            machine.observer.patient(true);
            self.run_engine(machine)
        })?
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
        let Server { app, core, inbox, drain } = self;
        EngineThread::new(core, &app, inbox, app.options.model.clone())?.run(machine.observer, drain)
    }
}

/// Opens the listening socket.
pub fn listen(host: &str, port: u16) -> Result<(std::net::TcpListener, SocketAddr)> {
    let failed = |e: std::io::Error| Error::input("--host and --port", format!("{host}:{port} ({e})"), "a free port");
    let listener = std::net::TcpListener::bind((host, port)).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}
