//! Images: broken ones, and addresses that must not be opened.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::{IntoResponse, Redirect};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::program::{Server, image, model, png};

const CHAT: &str = "/v1/chat/completions";

fn with(url: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], "max_tokens": 2,
        "seed": 1})
}

fn data(bytes: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_images_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let intact = png(4);
    let mut bomb = png(0);
    // The header declares 60,000 x 60,000 pixels.
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    let thin = {
        let mut file = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(10_000, 1).write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let memory = server.memory();
    for url in [
        data(&intact[..intact.len() / 2]),
        data(b"<html><script>alert(1)</script></html>"),
        data(&bomb),
        data(&thin),
        data(&[]),
        "data:image/png;base64,@@@@".to_owned(),
        "data:image/png,abc".to_owned(),
        "data:".to_owned(),
        "data:;base64,".to_owned(),
        String::new(),
        "image.png".to_owned(),
        "/etc/passwd".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://127.0.0.1:1/x.png".to_owned(),
        "https://example.com/x.png".to_owned(),
        "ftp://example.com/x.png".to_owned(),
        "javascript:alert(1)".to_owned(),
        "http://[::1]/".to_owned(),
        "http://2130706433/x".to_owned(),
        "\u{0}".to_owned(),
    ] {
        let error = server.refused(CHAT, &with(&url), 400).await;
        assert!(error["param"].as_str().unwrap().starts_with("messages[0].content[0].image_url"), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(!message.contains("0x") && !message.contains("passwd"), "{message}");
    }
    assert!(server.memory() < memory + (64 << 20), "{} MB", (server.memory() - memory) >> 20);
    // The declared type of an image is not believed.
    let jpeg = data(&intact).replace("image/png", "text/html");
    server.chat(&with(&jpeg)).await;
    let one = json!({"type": "image_url", "image_url": {"url": image(1)}});
    let many = json!({"messages": [{"role": "user", "content": vec![one; 65]}]});
    assert_eq!(server.refused(CHAT, &many, 400).await["param"], "messages[0].content[0].image_url");
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Starts a server with an image and with redirects. Returns its port and the number of requests that it has received.
async fn images() -> (u16, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let counted = count.clone();
    let to = move |url: String| {
        let count = counted.clone();
        get(move || {
            count.fetch_add(1, Ordering::SeqCst);
            async move { Redirect::temporary(&url) }
        })
    };
    let counted = count.clone();
    let image = get(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { png(4).into_response() }
    });
    let routes = Router::new()
        .route("/image", image)
        .route("/once", to("/image".to_owned()))
        .route("/forever", to("/forever".to_owned()))
        .route("/away", to(format!("http://localhost:{port}/image")))
        .route("/metadata", to("http://169.254.169.254/latest".to_owned()))
        .route("/file", to("file:///etc/passwd".to_owned()))
        .route("/large", get(|| async { vec![0u8; 40 << 20] }));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (port, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_opened_only_if_a_flag_allows_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let (port, count) = images().await;
    // An address in the list is allowed itself; a name must have public addresses only.
    let server = Server::start(&model, &["--allowed-media-domains", "127.0.0.1,localhost,LOOP.example"]);
    let want = server.chat(&with(&data(&png(4)))).await["choices"].clone();
    for path in ["image", "once"] {
        let answer = server.chat(&with(&format!("http://127.0.0.1:{port}/{path}"))).await;
        assert_eq!(answer["choices"], want, "{path}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 3);
    // Loopback under its name, other forms of its address, and redirects that lead away.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let own = listener.local_addr().unwrap().port();
    for url in [
        format!("http://localhost:{own}/x"),
        format!("http://[::1]:{own}/x"),
        format!("http://0.0.0.0:{own}/x"),
        format!("http://127.0.0.2:{own}/x"),
        format!("http://[::ffff:127.0.0.1]:{own}/x"),
        format!("http://user@evil.example:{own}/"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://127.0.0.1.evil.example/".to_owned(),
        format!("http://127.0.0.1@169.254.169.254:{own}/"),
        format!("https://127.0.0.1:{own}/x"),
    ] {
        server.refused(CHAT, &with(&url), 400).await;
        assert!(url.starts_with("https") || listener.accept().is_err(), "{url} was opened");
    }
    for path in ["forever", "away", "metadata", "file", "large", "missing"] {
        server.refused(CHAT, &with(&format!("http://127.0.0.1:{port}/{path}")), 400).await;
    }
    // The address in decimal is the allowed one.
    server.chat(&with(&format!("http://2130706433:{port}/image"))).await;
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_image_whose_transfer_breaks_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    // The connection ends before the declared length, after a whole image.
    let remote = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let image = png(4);
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", image.len() + 1);
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(&[head.as_bytes(), &image].concat()).unwrap();
    });
    let server = Server::start(&model(dir.path()), &["--allowed-media-domains", "127.0.0.1"]);
    let error = server.refused(CHAT, &with(&url), 400).await;
    assert!(error["message"].as_str().unwrap().contains("broke off"), "{error}");
    remote.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_only_below_the_allowed_folder() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside.png"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(inside.join("a b.png"), png(4)).unwrap();
    std::fs::write(&outside, png(4)).unwrap();
    std::os::unix::fs::symlink(&outside, inside.join("link.png")).unwrap();
    let server = Server::start(&model, &["--allowed-local-media-path", inside.to_str().unwrap()]);
    let want = server.chat(&with(&data(&png(4)))).await["choices"].clone();
    let at = |name: &str| format!("file://{}/{name}", inside.display());
    assert_eq!(server.chat(&with(&at("a%20b.png"))).await["choices"], want);
    for name in ["link.png", "../outside.png", "%2e%2e/outside.png", "missing.png", "", "a b.png/x"] {
        server.refused(CHAT, &with(&at(name)), 400).await;
    }
    server.refused(CHAT, &with(&format!("file://{}", outside.display())), 400).await;
    server.refused(CHAT, &with(&format!("file://other.example{}/a%20b.png", inside.display())), 400).await;
}
