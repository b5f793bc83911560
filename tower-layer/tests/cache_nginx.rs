//! A real origin: nginx, with the cache headers that it sends.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used)]

use farcall_tower::reqwest::EgressMiddleware;
use farcall_tower::{Farcall, Options};
use reqwest_middleware::{ClientWithMiddleware, RequestBuilder};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// So long a test waits for what is to come soon.
const SOON: Duration = Duration::from_secs(60);

/// An nginx of this test alone: its directory, its files, its socket.
struct Nginx {
    child: Child,
    directory: TempDir,
}

const CONFIG: &str = r"
daemon off;
master_process off;
pid DIR/pid;
error_log DIR/error.log;
events {}
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    types { text/plain txt; application/json json; }
    gzip_types application/json;
    gzip_min_length 1;
    gzip_vary on;
    server {
        listen unix:DIR/socket;
        root DIR/www;
        location /hour/ { expires 1h; }
        location /second/ { expires 1s; }
        location /epoch/ { expires epoch; }
        location /never/ { add_header Cache-Control no-store; }
        location /plain/ { }
        location /zipped/ { gzip on; expires 1h; }
    }
}
";

impl Nginx {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for folder in ["hour", "second", "epoch", "never", "plain", "zipped"] {
            fs::create_dir_all(path.join("www").join(folder)).unwrap();
        }
        fs::write(path.join("conf"), CONFIG.replace("DIR", path.to_str().unwrap())).unwrap();
        // Not on everybody's path.
        let system = Path::new("/usr/sbin/nginx");
        let mut child = Command::new(if system.exists() { system } else { Path::new("nginx") });
        child.arg("-p").arg(path).arg("-c").arg(path.join("conf")).arg("-e").arg(path.join("error.log"));
        let mut child = child
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx, which scripts/setup-system installs");
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(path.join("socket")).is_err() {
            let log = || fs::read_to_string(path.join("error.log")).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "it ended: {}", log());
            assert!(begun.elapsed() < SOON, "it does not come up: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, directory }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("www").join(name)
    }

    /// Writes a file that was last changed so long ago.
    fn write(&self, name: &str, text: &str, ago: Duration) {
        fs::write(self.file(name), text).unwrap();
        let file = File::options().write(true).open(self.file(name)).unwrap();
        file.set_modified(SystemTime::now() - ago).unwrap();
    }

    fn client(&self, home: &Path, keys: &str) -> (Farcall, ClientWithMiddleware) {
        let rules = format!("[[cache]]\nname = \"all\"\nmatch = {{}}\n{keys}\n");
        fs::write(home.join("farcall.toml"), rules).unwrap();
        let farcall = Farcall::start(Options {
            home: Some(home.to_owned()),
            config: Some(home.join("farcall.toml")),
            service: Some("test".into()),
            flush_every: None,
            hub: false,
            enabled: true,
            ..Options::default()
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().unix_socket(self.directory.path().join("socket"));
        let client = reqwest_middleware::ClientBuilder::new(client.build().unwrap());
        (farcall.clone(), client.with(EgressMiddleware::with(farcall)).build())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came: the status, why (`-` where the cache says nothing), the body.
async fn send(request: RequestBuilder) -> (u16, String, Vec<u8>) {
    let response = request.send().await.unwrap();
    let why = response.headers().get("cache-status").map_or("-", |why| why.to_str().unwrap()).to_owned();
    (response.status().as_u16(), why, response.bytes().await.unwrap().to_vec())
}

const LONG_AGO: Duration = Duration::from_secs(10 * 86_400);

#[tokio::test]
async fn what_nginx_says_of_how_long_a_file_is_fresh_is_kept_to() {
    let (nginx, home) = (Nginx::start(), tempfile::tempdir().unwrap());
    let (_farcall, client) = nginx.client(home.path(), "");
    for folder in ["hour", "epoch", "never", "plain"] {
        nginx.write(&format!("{folder}/a.txt"), "first", LONG_AGO);
    }
    let get = |folder: &str| client.get(format!("http://files.example.com/{folder}/a.txt"));
    for folder in ["hour", "plain"] {
        assert_eq!(send(get(folder)).await, (200, "-".into(), b"first".to_vec()));
        // Fresh by `Cache-Control: max-age=3600`, or for a tenth of the time since it was last changed.
        let (status, why, body) = send(get(folder)).await;
        assert_eq!((status, body.as_slice()), (200, b"first".as_slice()));
        assert!(why.starts_with("farcall; hit; ttl="), "{folder}: {why}");
    }
    let response = get("hour").send().await.unwrap();
    for header in ["etag", "last-modified", "expires", "cache-control", "age", "content-length"] {
        assert!(response.headers().contains_key(header), "{header}");
    }
    for _ in 0..2 {
        assert_eq!(send(get("never")).await, (200, "-".into(), b"first".to_vec()), "no-store");
    }
    // To be asked about each time: unchanged, and then not.
    assert_eq!(send(get("epoch")).await.1, "-");
    let (status, why, body) = send(get("epoch")).await;
    assert_eq!((status, body.as_slice()), (200, b"first".as_slice()));
    assert_eq!(why.split("; ttl").next(), Some("farcall; fwd=stale; fwd-status=304; stored"));
    nginx.write("epoch/a.txt", "second", Duration::from_secs(5));
    assert_eq!(send(get("epoch")).await, (200, "-".into(), b"second".to_vec()));
}

#[tokio::test]
async fn a_zipped_answer_is_for_those_who_take_one() {
    let (nginx, home) = (Nginx::start(), tempfile::tempdir().unwrap());
    let (_farcall, client) = nginx.client(home.path(), "");
    let text = format!("{{\"text\":\"{}\"}}", "x".repeat(500));
    nginx.write("zipped/a.json", &text, LONG_AGO);
    let get =
        |coding: &str| client.get("http://files.example.com/zipped/a.json").header("accept-encoding", coding);
    for hit in [false, true] {
        for coding in ["gzip", "identity"] {
            let (_, why, body) = send(get(coding)).await;
            assert_eq!(why.starts_with("farcall; hit"), hit, "{coding}: {why}");
            match coding {
                "gzip" => assert_eq!(body[..2], [0x1F, 0x8B], "as it came"),
                _ => assert_eq!(body, text.as_bytes()),
            }
        }
    }
}

#[tokio::test]
async fn parts_of_a_file_are_asked_for_and_not_kept() {
    let (nginx, home) = (Nginx::start(), tempfile::tempdir().unwrap());
    let (_farcall, client) = nginx.client(home.path(), "");
    nginx.write("hour/a.txt", "0123456789", LONG_AGO);
    let get = || client.get("http://files.example.com/hour/a.txt");
    let part = || get().header("range", "bytes=2-4");
    for _ in 0..2 {
        assert_eq!(send(part()).await, (206, "-".into(), b"234".to_vec()));
    }
    assert_eq!(send(get()).await, (200, "-".into(), b"0123456789".to_vec()));
    assert!(send(get()).await.1.starts_with("farcall; hit"));
    assert_eq!(send(part()).await, (206, "-".into(), b"234".to_vec()));
}

#[tokio::test]
async fn a_stale_file_stands_in_for_an_nginx_that_is_gone() {
    let (mut nginx, home) = (Nginx::start(), tempfile::tempdir().unwrap());
    let (_farcall, client) = nginx.client(home.path(), "stale_if_error = \"1d\"");
    nginx.write("second/a.txt", "first", LONG_AGO);
    let get = || client.get("http://files.example.com/second/a.txt");
    assert_eq!(send(get()).await, (200, "-".into(), b"first".to_vec()));
    nginx.child.kill().unwrap();
    nginx.child.wait().unwrap();
    let begun = Instant::now();
    loop {
        let (status, why, body) = send(get()).await;
        assert_eq!((status, body.as_slice()), (200, b"first".as_slice()), "whether it is fresh yet or not");
        if why.ends_with("detail=stale-if-error") {
            break;
        }
        assert!(begun.elapsed() < SOON, "{why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
