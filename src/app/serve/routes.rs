//! The routes of the server: who may use them, and what each one answers.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::answer::Answer;
use super::app::App;
use super::engine_client::{Control, PauseMode};
use super::errors::{Api, ApiError};
use super::fields::Fields;
use super::http::is_of_loopback;
use super::requests::{self, Route};
use super::{body, format, page, stream};
use omr_data::text::Special;

/// Routes without a key: whether the server is ready, and the page, which asks for the key itself.
const OPEN: [&str; 3] = ["/health", "/", "/config.json"];
/// Routes that need the key of administrators.
const ADMIN: [&str; 6] =
    ["/pause", "/resume", "/is_paused", "/abort_requests", "/update_weights_from_disk", "/weight_info"];

/// Returns the routes.
pub fn router(app: Arc<App>) -> Router {
    let reasoning_parser = if app.options.has_reasoning_parser { "qwen3" } else { "none" };
    let page = page::routes(json!({"key": !app.options.api_keys.is_empty(), "reasoning_parser": reasoning_parser}));
    let model = Router::new()
        .route("/ping", get(health).post(health))
        .route("/health", get(health))
        .route("/version", get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }))
        .route("/metrics", get(metrics))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(|state, request| generate(state, Route::Chat, request)))
        .route("/v1/completions", post(|state, request| generate(state, Route::Completions, request)))
        .route("/inference/v1/generate", post(|state, request| generate(state, Route::Generate, request)))
        .route("/v1/chat/completions/render", post(render))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/tokenizer_info", get(tokenizer_info));
    let admin = Router::new()
        .route("/pause", post(pause))
        .route("/resume", post(|State(app): State<Arc<App>>| async move { control(&app, Control::Resume).await }))
        .route("/is_paused", get(|State(app): State<Arc<App>>| async move { control(&app, Control::IsPaused).await }))
        .route("/abort_requests", post(abort_requests))
        .route("/update_weights_from_disk", post(update_weights))
        .route("/weight_info", get(|State(app): State<Arc<App>>| async move { Json(app.weight_info()) }));
    let routes = model.merge(admin).with_state(app.clone()).merge(page);
    let unknown = |request: Request| async move {
        ApiError::new(StatusCode::NOT_FOUND, format!("no route {} {}", request.method(), request.uri().path()))
    };
    let wrong_method = |request: Request| async move {
        let message = format!("{} does not accept {}", request.uri().path(), request.method());
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
    };
    let routes = routes.fallback(unknown).method_not_allowed_fallback(wrong_method);
    let routes = routes.layer(from_fn_with_state(app.clone(), check_key)).layer(from_fn_with_state(app, cross_origin));
    Router::new().fallback(move |request| routes.clone().oneshot(normalised(request)))
}

/// Returns a request whose path has no repeated and no final slashes. Clients join `/v1/` and `/models`.
fn normalised(mut request: Request) -> Request {
    let path: Vec<&str> = request.uri().path().split('/').filter(|part| !part.is_empty()).collect();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(uri) = format!("/{}{query}", path.join("/")).parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// Lets pages of the origins of `--allowed-origins` use the server (CORS).
async fn cross_origin(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let allowed = &app.options.allowed_origins;
    let origin = request.headers().get(header::ORIGIN).filter(|origin| {
        allowed.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/').as_bytes() == origin.as_bytes())
    });
    let Some(origin) = origin.cloned() else { return next.run(request).await };
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-omr-seed"));
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.extend(asked.map(|asked| (header::ACCESS_CONTROL_ALLOW_HEADERS, asked)));
    }
    response
}

/// Refuses requests without a valid key. It sees every request first. The comparison of keys takes the same time for any
/// key, because it compares their hashes.
async fn check_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let options = &app.options;
    let path = request.uri().path();
    let is_open = OPEN.contains(&path) && [Method::GET, Method::HEAD].contains(request.method());
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| blake3::hash(key))
    });
    let is_given = |key: &String| given.is_some_and(|given| blake3::hash(key.as_bytes()) == given);
    let is_one_of = |keys: &[String]| keys.iter().fold(false, |is, key| is | is_given(key));
    let refused = |status, message: &str| ApiError::new(status, message).into_response();
    if options.only_localhost && options.api_keys.is_empty() && !is_of_loopback(request.headers()) {
        let message = "this server answers requests to localhost only; --host ADDRESS or --api-key KEY changes that";
        return refused(StatusCode::FORBIDDEN, message);
    }
    if ADMIN.contains(&path) {
        return match &options.admin_api_key {
            None => refused(StatusCode::NOT_FOUND, "this route needs a server with --admin-api-key"),
            Some(key) if !is_one_of(std::slice::from_ref(key)) => {
                refused(StatusCode::UNAUTHORIZED, "this route needs the key of --admin-api-key")
            }
            Some(_) => next.run(request).await,
        };
    }
    if !is_open && !options.api_keys.is_empty() && !is_one_of(&options.api_keys) {
        return refused(StatusCode::UNAUTHORIZED, "a valid key is needed: Authorization: Bearer KEY");
    }
    next.run(request).await
}

async fn health(State(app): State<Arc<App>>) -> Api<()> {
    app.engine.check()
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}

/// Returns the descriptions of all models.
fn all_models(app: &App) -> Vec<Value> {
    let model = |name: &String, root: &str, parent: Option<&String>| {
        json!({"id": name, "object": "model", "created": app.created, "owned_by": "omr", "root": root,
            "parent": parent, "max_model_len": app.max_model_len})
    };
    let mut list: Vec<Value> = app.names.iter().map(|name| model(name, &app.options.root, None)).collect();
    list.extend(app.options.adapter.iter().map(|(name, dir)| model(name, &dir.to_string_lossy(), app.names.first())));
    list
}

async fn models(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"object": "list", "data": all_models(&app)}))
}

async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Api<Json<Value>> {
    let found = all_models(&app).into_iter().find(|model| model["id"] == *id);
    found.map(Json).ok_or_else(|| app.unknown_model(&id))
}

/// Answers a request that generates tokens.
async fn generate(State(app): State<Arc<App>>, route: Route, request: Request) -> Api<Response> {
    app.engine.check()?;
    let body = body::json(request).await?;
    let mut prepared = requests::prepare(&app, route, body).await?;
    prepared.share(&app)?;
    let (is_stream, seed) = (prepared.output.stream, prepared.sampling.params.noise.seed);
    let answer = Answer::begin(&app, prepared)?;
    let mut response = if is_stream { stream::response(app, answer) } else { format::response(app, answer).await? };
    response.headers_mut().insert("x-omr-seed", HeaderValue::from(seed));
    Ok(response)
}

async fn render(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let mut body = body::json(request).await?;
    requests::inline_images(&app, &mut body).await?;
    let rendered = tokio::task::spawn_blocking(move || requests::rendered(&app, body).map(Json));
    rendered.await.map_err(|_| ApiError::internal(&omr_base::error::Error::Failed("a handler panicked".to_owned())))?
}

/// Reads a request and answers it with `act`, which may take long.
async fn answered(
    app: Arc<App>,
    request: Request,
    act: impl FnOnce(&App, &mut Fields) -> Api<Value> + Send + 'static,
) -> Api<Json<Value>> {
    let mut fields = Fields::new(body::json(request).await?, "")?;
    let answer = tokio::task::spawn_blocking(move || {
        app.take_model(&mut fields)?;
        let answer = act(&app, &mut fields)?;
        fields.end().map(|()| Json(answer))
    });
    answer.await.map_err(|_| ApiError::internal(&omr_base::error::Error::Failed("a handler panicked".to_owned())))?
}

async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let act = |app: &App, fields: &mut Fields| {
        let text = fields.string("prompt")?.ok_or_else(|| ApiError::field("prompt", "nothing", "a text"))?;
        let add_special_tokens = fields.bool("add_special_tokens", true)?;
        let with_strings = fields.bool("return_token_strs", false)?;
        let ids = app.chat.tokenizer.encode(&text, Special::Parse);
        let ids = ids.map_err(|error| ApiError::refused("prompt", error))?;
        let ids = if add_special_tokens { app.chat.tokenizer.with_bos(ids) } else { ids };
        let strings: Option<Vec<_>> =
            with_strings.then(|| ids.iter().map(|&id| app.chat.tokenizer.token(id)).collect());
        Ok(json!({"tokens": ids, "count": ids.len(), "max_model_len": app.max_model_len, "token_strs": strings}))
    };
    answered(app, request, act).await
}

async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let act = |app: &App, fields: &mut Fields| {
        let ids = fields.ids("tokens", app.config.text.vocab_size)?;
        let ids = ids.ok_or_else(|| ApiError::field("tokens", "nothing", "a list of token ids"))?;
        Ok(json!({"prompt": app.chat.tokenizer.decode(&ids, false)}))
    };
    answered(app, request, act).await
}

async fn tokenizer_info(State(app): State<Arc<App>>) -> Json<Value> {
    let token = |name: &str| app.chat.template.special_token(name);
    let info = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": token("eos_token"),
        "bos_token": token("bos_token"), "pad_token": token("pad_token"), "chat_template": app.chat.template.source()});
    Json(info)
}

async fn control(app: &App, control: Control) -> Api<Json<Value>> {
    app.engine.control(control).await.map(Json)
}

async fn pause(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let mode = match request.uri().query() {
        None | Some("" | "mode=abort") => PauseMode::Abort,
        Some("mode=wait") => PauseMode::Wait,
        Some("mode=keep") => PauseMode::Keep,
        Some(other) => return Err(ApiError::field("mode", format!("?{other}"), "mode=abort, mode=wait or mode=keep")),
    };
    control(&app, Control::Pause(mode)).await
}

async fn abort_requests(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let mut fields = Fields::new(body::json(request).await?, "")?;
    let names = |value: &Value| value.as_array()?.iter().map(|id| id.as_str().map(str::to_owned)).collect();
    let names = fields.read("request_ids", "a list of ids", names)?;
    fields.end()?;
    let names = names.ok_or_else(|| ApiError::field("request_ids", "nothing", "a list of ids"))?;
    control(&app, Control::AbortRequests(names)).await
}

async fn update_weights(State(app): State<Arc<App>>, request: Request) -> Api<Json<Value>> {
    let mut fields = Fields::new(body::json(request).await?, "")?;
    let path = fields.string("model_path")?;
    fields.end()?;
    let path = path.ok_or_else(|| ApiError::field("model_path", "nothing", "a model directory of this machine"))?;
    control(&app, Control::UpdateWeights(path.into())).await
}
