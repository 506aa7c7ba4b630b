//! The engine thread. It alone owns the device and the engine: it takes commands between steps, computes steps while
//! there is work, and sends each result to the request that waits for it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::app::App;
use super::engine_client::{Addition, Command, Control, Event, PauseMode, Ticket};
use super::errors::{Api, ApiError};
use omr_base::error::{Error, Result};
use omr_base::identity;
use omr_base::observe::{Observer, Silent};
use omr_model::engine::{Engine, RequestId};
use omr_model::nn::weights::WeightFiles;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::Device;

/// Interval of checks for a stop request while there is no work.
const LOOK: Duration = Duration::from_millis(20);

/// The model and the device of the engine thread.
pub struct Core {
    /// Device.
    pub dev: Device,
    /// Model on the device.
    pub model: Model,
    /// Engine.
    pub engine: Engine,
}

/// State of the engine thread.
pub struct EngineThread<'a> {
    core: Core,
    app: &'a App,
    inbox: Receiver<Command>,
    in_flight: HashMap<RequestId, Addition>,
    requests: HashMap<Ticket, RequestId>,
    /// Requests that have arrived during a pause.
    held: Vec<Addition>,
    is_paused: bool,
    /// Administrators who wait until the requests in flight are finished.
    pausing: Vec<oneshot::Sender<Api<Value>>>,
    /// Directory of the weights.
    dir: PathBuf,
    /// Hashes of the other files that were loaded, by name.
    settings: BTreeMap<String, String>,
    /// The reason why the weights are not valid.
    failed: Option<Error>,
    is_finished: bool,
}

impl<'a> EngineThread<'a> {
    /// Creates the thread's state without requests. The model comes from the directory `dir`. Errors if its files cannot
    /// be read.
    pub fn new(core: Core, app: &'a App, inbox: Receiver<Command>, dir: PathBuf) -> Result<EngineThread<'a>> {
        Ok(EngineThread {
            core,
            app,
            inbox,
            in_flight: HashMap::new(),
            requests: HashMap::new(),
            held: Vec::new(),
            is_paused: false,
            pausing: Vec::new(),
            settings: identity::settings(&dir)?,
            dir,
            failed: None,
            is_finished: false,
        })
    }

    /// Answers requests until `observer` requests a stop and the requests in flight are finished or the time `drain` has
    /// passed, or until all clients are gone. Errors if the device fails.
    pub fn run(mut self, observer: &dyn Observer, drain: Duration) -> Result<()> {
        let done = self.steps(observer, drain);
        self.app.engine.end();
        let (ids, held) = (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.held));
        ids.into_values().chain(held).for_each(|mut addition| send(&mut addition, Event::Aborted));
        self.core.engine.release(&mut self.core.dev);
        done
    }

    fn steps(&mut self, observer: &dyn Observer, drain: Duration) -> Result<()> {
        let mut deadline = None;
        loop {
            let has_work = self.core.engine.has_unfinished_requests() && (!self.is_paused || !self.pausing.is_empty());
            loop {
                let command = match has_work {
                    true => self.inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout),
                    false => self.inbox.recv_timeout(LOOK),
                };
                match command {
                    Ok(command) => self.take(command),
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
                if !has_work && self.core.engine.has_unfinished_requests() {
                    break;
                }
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if deadline.is_none() && observer.stop_requested() {
                self.app.engine.drain();
                deadline = Some(Instant::now() + drain);
                self.resume();
            }
            let has_work = self.core.engine.has_unfinished_requests();
            if self.is_finished || deadline.is_some_and(|deadline| !has_work || Instant::now() >= deadline) {
                return Ok(());
            }
            if has_work && (!self.is_paused || !self.pausing.is_empty()) {
                self.step()?;
            }
            if !self.core.engine.has_unfinished_requests() {
                self.pausing.drain(..).for_each(|waiting| drop(waiting.send(Ok(json!({"status": "paused"})))));
            }
            self.app.metrics.set_load(&self.core.engine, self.held.len());
        }
    }

    /// Computes a step and sends its results.
    fn step(&mut self) -> Result<()> {
        let Core { dev, model, engine } = &mut self.core;
        let outputs = engine.step(model, dev)?;
        let now = Instant::now();
        let tokens = outputs.iter().filter(|output| output.token.is_some()).count();
        self.app.metrics.generation_tokens.inc_by(tokens as u64);
        for output in outputs {
            let Some(addition) = self.in_flight.get_mut(&output.request) else { continue };
            if output.finish.is_some() {
                addition.unfinished = addition.unfinished.saturating_sub(1);
                addition.permit.take_if(|_| addition.unfinished == 0);
            }
            send(addition, Event::Output(output, now));
        }
        Ok(())
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Add(addition) if self.is_paused => self.held.push(*addition),
            Command::Add(addition) => self.add(*addition),
            Command::Finish => self.is_finished = true,
            Command::AbortChoice(ticket, choice) => {
                if let Some(&id) = self.requests.get(&ticket) {
                    self.core.engine.abort_choice(id, choice);
                }
            }
            Command::Abort(ticket) => {
                self.held.retain(|addition| addition.ticket != ticket);
                if let Some(id) = self.requests.remove(&ticket) {
                    self.core.engine.abort_request(id);
                    self.in_flight.remove(&id);
                }
            }
            Command::Control(Control::Pause(PauseMode::Wait), answer) => {
                self.is_paused = true;
                self.pausing.push(answer);
            }
            Command::Control(control, answer) => {
                // The administrator may have gone away.
                let _ = answer.send(self.control(control));
            }
        }
    }

    fn add(&mut self, mut addition: Addition) {
        match self.core.engine.add_request(addition.request.clone()) {
            Ok(id) => {
                self.requests.insert(addition.ticket, id);
                self.in_flight.insert(id, addition);
            }
            Err(error) => send(&mut addition, Event::Refused(error)),
        }
    }

    fn control(&mut self, control: Control) -> Api<Value> {
        match control {
            Control::Pause(mode) => {
                self.is_paused = true;
                if mode == PauseMode::Abort {
                    self.abort(|_| true);
                }
                Ok(json!({"status": "paused"}))
            }
            Control::Resume => {
                self.resume();
                Ok(json!({"status": "resumed"}))
            }
            Control::IsPaused => Ok(json!({"is_paused": self.is_paused})),
            Control::AbortRequests(names) => Ok(json!({"aborted": self.abort(|name| names.contains(name))})),
            Control::UpdateWeights(dir) => self.update_weights(&dir),
        }
    }

    fn resume(&mut self) {
        self.is_paused = false;
        self.pausing.drain(..).for_each(|waiting| drop(waiting.send(Ok(json!({"status": "resumed"})))));
        std::mem::take(&mut self.held).into_iter().for_each(|addition| self.add(addition));
    }

    /// Ends the requests with these names. Returns their number.
    fn abort(&mut self, is_meant: impl Fn(&str) -> bool) -> usize {
        let mut ended: Vec<Addition> = self.held.extract_if(.., |addition| is_meant(&addition.name)).collect();
        for (id, addition) in self.in_flight.extract_if(|_, addition| is_meant(&addition.name)) {
            self.core.engine.abort_request(id);
            ended.push(addition);
        }
        ended.iter_mut().for_each(|addition| {
            self.requests.remove(&addition.ticket);
            send(addition, Event::Aborted);
        });
        ended.len()
    }

    /// Reads the weights in `dir`, whose configuration must be the model's. If they cannot be read, the model keeps its
    /// weights.
    fn update_weights(&mut self, dir: &Path) -> Api<Value> {
        let refused =
            |error: Error| ApiError::field("model_path", error, "a model directory with the same configuration");
        let config = ModelConfig::load(&dir.join("config.json")).map_err(refused)?;
        let Core { dev, model, engine } = &mut self.core;
        if !model.layout.adapters.is_empty() {
            let found = "a server with an adapter";
            return Err(ApiError::field("model_path", found, "a server of a model without adapters"));
        }
        if config != model.config {
            let found = format!("{}, whose config.json differs", dir.display());
            return Err(ApiError::field("model_path", found, "the configuration of the served model"));
        }
        // Template, tokenizer and other settings stay those of the start.
        let settings = identity::settings(dir).map_err(refused)?;
        let mut names = settings.keys().chain(self.settings.keys());
        if let Some(name) = names.find(|name| settings.get(*name) != self.settings.get(*name)) {
            let found = format!("{}, whose {name} differs", dir.display());
            return Err(ApiError::field("model_path", found, "the files of the served model besides the weights"));
        }
        let identity = identity::of(dir).map_err(refused)?;
        let mut load = |dir: &Path| WeightFiles::open(dir)?.load(dev, &model.layout, model.config.family, &Silent);
        let loaded = load(dir);
        if loaded.is_err() {
            // Some weights may have been overwritten. The directory may have changed since it was loaded.
            let again = load(&self.dir).and_then(|()| identity::of(&self.dir));
            self.failed = again.map(|identity| self.app.set_weights(&identity)).err();
        } else {
            self.dir = dir.to_owned();
            self.app.set_weights(&identity);
        }
        engine.update_weights();
        loaded.map_err(refused).map(|()| self.app.weight_info())
    }
}

/// Sends an event with the unsent ones before it, unless it is a result that can wait.
fn send(addition: &mut Addition, event: Event) {
    let can_wait = matches!(&event, Event::Output(output, _) if output.finish.is_none()) && !addition.is_immediate;
    addition.unsent.push(event);
    if !can_wait {
        for event in addition.unsent.drain(..) {
            // The client may have gone away. Its request is then aborted by another command.
            let _ = addition.events.try_send((addition.ticket, event));
        }
    }
}
