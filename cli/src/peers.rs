//! The way to the other index nodes, over HTTP.
//!
//! [`nodes`] makes of the configuration what searches ask: the index of this process and a [`Way`] to every other node of
//! `search.peers`. A way sends a question to `/api/v1/index` of its node, waits no longer than a search may take and a
//! little more, and reads no more than an answer may have. It says why there is none ([`Unanswered`]) and nothing of what
//! was sent instead. Proxies and redirects are not followed: the token goes to the node that is named, or nowhere.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use reqwest::{Client, StatusCode, Url};
use search::config::Peer;
use search::nodes::{Ask, MAX_REPLY, Node, Other, Question, Reply, Unanswered};
use search::{Nodes, Searcher};
use tokio::runtime::Runtime;

use crate::clock;
use crate::config::Config;
use crate::exit::Usage;
use crate::role::{Role, Roles};

/// How long it may take to get a connection.
const CONNECT: Duration = Duration::from_secs(2);
/// How much longer than a search may take the way there and back takes.
const AROUND: Duration = Duration::from_secs(2);
/// How long a question may take that is no search.
const QUICK: Duration = Duration::from_secs(4);
/// How long to wait before a node is asked again that was answering too many.
const BUSY: Duration = Duration::from_millis(250);

/// The ways to other nodes, and the threads that go there.
struct Ways(Option<Runtime>);

impl Drop for Ways {
    fn drop(&mut self) {
        // Also where nobody may wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// The way to one node.
struct Way {
    client: Client,
    address: Url,
    token: Option<String>,
    timeout: Duration,
    ways: Arc<Ways>,
}

/// All that is wrong with `search.peers`.
pub(crate) fn problems(config: &Config) -> Vec<String> {
    let peers = config.search.peers.iter();
    let wrong = peers.filter_map(|peer| {
        let error = client(peer).err()?;
        Some(format!("search.peers: node {}: {error:#}", peer.node))
    });
    wrong.collect()
}

/// Refuses to start a node whose searches could never be whole.
pub(crate) fn check(config: &Config, roles: &Roles) -> anyhow::Result<()> {
    let unasked = config.search.unasked(roles.contains(&Role::Index));
    let several = config.bus.kafka.is_some() && config.search.nodes > 1;
    if !several || !roles.contains(&Role::Api) || unasked.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = unasked.iter().map(u32::to_string).collect();
    Err(anyhow::anyhow!(
        "search.peers: {} of the index is nowhere to be asked, and searches of this node would never be whole\n\nhint: name every index node, each with its `node` and `url`; all nodes may have the same list (docs/operating.md)",
        match missing.as_slice() {
            [one] => format!("share {one}"),
            all => format!("shares {}", all.join(", ")),
        }
    )
    .context(Usage))
}

/// All that searches of this node ask.
pub(crate) fn nodes(
    config: &Config,
    roles: &Roles,
    searcher: &Searcher,
    metrics: search::Metrics,
) -> anyhow::Result<Nodes> {
    let searches = roles.contains(&Role::Index) || roles.contains(&Role::Api);
    if config.bus.kafka.is_none() || !searches {
        return Ok(searcher.clone().into());
    }
    let own = roles.contains(&Role::Index).then(|| searcher.clone());
    let others = config.search.peers.iter();
    let others: Vec<&Peer> = others
        .filter(|peer| own.is_none() || peer.node != config.search.node)
        .collect();
    let runtime = match others.is_empty() {
        true => None,
        false => Some(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name("index nodes")
                .enable_all()
                .build()
                .context("cannot start the threads that ask index nodes")?,
        ),
    };
    let ways = Arc::new(Ways(runtime));
    let others = others.into_iter().map(|peer| {
        let (client, address, token) = client(peer)?;
        let name = address.origin().ascii_serialization();
        let way = Way {
            client,
            address,
            token,
            timeout: Duration::from_millis(config.search.timeout_ms) + AROUND,
            ways: Arc::clone(&ways),
        };
        anyhow::Ok(Other {
            node: peer.node,
            name,
            way: Arc::new(way),
        })
    });
    let others = others.collect::<anyhow::Result<_>>()?;
    Ok(Nodes::new(
        own,
        others,
        &config.search,
        metrics,
        clock::clock(),
    ))
}

/// What a peer is asked with: client, address and token.
fn client(peer: &Peer) -> anyhow::Result<(Client, Url, Option<String>)> {
    let url = Url::parse(&peer.url).with_context(|| format!("`{}` is no address", peer.url))?;
    anyhow::ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the address has a login; a token is what the node wants (`token_file`)"
    );
    let is_near = match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback()),
        None => false,
    };
    match url.scheme() {
        "https" => {}
        "http" if peer.allow_http || is_near => {}
        "http" => anyhow::bail!(
            "`http://` would send the token and what is found in clear: use https, or set allow_http on a network that only the nodes are in"
        ),
        other => anyhow::bail!("`{other}` is no way to a node: use https"),
    }
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let token = peer.token_file.as_deref().map(read).transpose()?;
    let token = token.map(|token| token.trim().to_owned());
    anyhow::ensure!(
        token.as_deref() != Some(""),
        "the file of `token_file` is empty"
    );
    let mut builder = Client::builder()
        .connect_timeout(CONNECT)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none());
    if let Some(path) = &peer.ca_file {
        let certificates = reqwest::Certificate::from_pem_bundle(read(path)?.as_bytes());
        let certificates = certificates
            .ok()
            .filter(|list| !list.is_empty())
            .with_context(|| format!("`{}` holds no certificate as PEM", path.display()))?;
        builder = builder.tls_certs_only(certificates);
    }
    let client = builder.build().context("cannot make a client")?;
    let address = url.join("/api/v1/index").context("cannot be asked")?;
    Ok((client, address, token))
}

impl Node for Way {
    fn ask(&self, question: &Question) -> Result<Reply, Unanswered> {
        let Some(runtime) = &self.ways.0 else {
            return Err(Unanswered::Failed("the service stops".to_owned()));
        };
        let timeout = match question.ask {
            Ask::State | Ask::Events { .. } => QUICK,
            _ => self.timeout,
        };
        let body = serde_json::to_vec(question)
            .map_err(|_| Unanswered::Failed("a question that cannot be asked".to_owned()))?;
        let end = Instant::now() + timeout;
        runtime.block_on(async {
            let answered = tokio::time::timeout(timeout, self.send(body, end)).await;
            answered.unwrap_or(Err(Unanswered::Slow(timeout)))
        })
    }
}

impl Way {
    /// Sends a question until the node has time for it.
    async fn send(&self, body: Vec<u8>, end: Instant) -> Result<Reply, Unanswered> {
        loop {
            let told = self.once(body.clone()).await;
            match told {
                Err(Unanswered::Busy) if Instant::now() + BUSY < end => {
                    tokio::time::sleep(BUSY).await;
                }
                told => return told,
            }
        }
    }

    async fn once(&self, body: Vec<u8>) -> Result<Reply, Unanswered> {
        let mut call = self
            .client
            .post(self.address.clone())
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body);
        if let Some(token) = &self.token {
            call = call.bearer_auth(token);
        }
        let mut answer = call.send().await.map_err(|e| unreachable(&e))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(Unanswered::Forbidden),
            StatusCode::SERVICE_UNAVAILABLE => return Err(Unanswered::Busy),
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::MISDIRECTED_REQUEST => {
                return Err(Unanswered::NoIndex(answer.status().as_u16()));
            }
            other => return Err(Unanswered::Failed(format!("HTTP {}", other.as_u16()))),
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|e| unreachable(&e))? {
            if bytes.len() + piece.len() > MAX_REPLY {
                let most = MAX_REPLY >> 20;
                return Err(Unanswered::Wrong(format!("more than {most} MiB")));
            }
            bytes.extend_from_slice(&piece);
        }
        Reply::read(&bytes)
    }
}

/// Why there is no way, in few words and none of the other end's.
fn unreachable(error: &reqwest::Error) -> Unanswered {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let word = match cause.downcast_ref::<std::io::Error>().map(|e| e.kind()) {
        _ if error.is_connect() && error.is_timeout() => "no connection in time".to_owned(),
        Some(kind) => kind.to_string(),
        None if error.is_connect() => cause.to_string(),
        None => "the connection broke off".to_owned(),
    };
    Unanswered::Unreachable(word)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    /// A node that answers every request with these bytes; none: with nothing.
    fn node(answer: Option<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut buffer = [0; 4_096];
                let _ = stream.read(&mut buffer);
                if let Some(answer) = &answer {
                    let _ = stream.write_all(answer.as_bytes());
                } else {
                    // It hangs.
                    open.push(stream);
                }
            }
        });
        address
    }

    fn http(status: &str, body: &str) -> Option<String> {
        Some(format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ))
    }

    fn peer(url: String) -> Peer {
        Peer {
            node: 1,
            url,
            token_file: None,
            ca_file: None,
            allow_http: false,
        }
    }

    fn way(peer: &Peer, ms: u64) -> Way {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (client, address, token) = client(peer).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        Way {
            client,
            address,
            token,
            timeout: Duration::from_millis(ms),
            ways: Arc::new(Ways(Some(runtime.unwrap()))),
        }
    }

    fn question() -> Question {
        Question {
            version: search::nodes::VERSION,
            now: event::Time(0),
            ask: Ask::Edges {
                request: search::Request::default(),
            },
        }
    }

    fn ask(address: SocketAddr, ms: u64) -> Result<Reply, Unanswered> {
        way(&peer(format!("http://{address}")), ms).ask(&question())
    }

    #[test]
    fn whatever_a_node_does_it_is_told_in_words() {
        let why = |answer| ask(node(answer), 20_000).err().unwrap();
        let hurried = |answer| ask(node(answer), 700).err().unwrap();
        let whole = r#"{"version":1,"node":1,"nodes":2,"covers":[],"told":{"Ok":{"edges":null}}}"#;
        assert!(ask(node(http("200 OK", whole)), 20_000).is_ok());
        assert_eq!(
            why(http("200 OK", r#"{"version":2,"new":[]}"#)),
            Unanswered::Version
        );
        for wrong in ["", "<script>", "{}", &whole[..30], r#"{"version":1}"#] {
            let why = why(http("200 OK", wrong));
            assert!(matches!(why, Unanswered::Wrong(_)), "{why}");
            assert!(!why.to_string().contains("script"), "{why}");
        }
        for status in ["401 Unauthorized", "403 Forbidden"] {
            assert_eq!(why(http(status, "")), Unanswered::Forbidden);
        }
        for status in [404, 405, 421] {
            assert_eq!(
                why(http(&format!("{status} no"), "")),
                Unanswered::NoIndex(status)
            );
        }
        assert_eq!(
            why(http("500 oh", "<b>")),
            Unanswered::Failed("HTTP 500".into())
        );
        // No redirect is followed.
        let away = "HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(
            why(Some(away.into())),
            Unanswered::Failed("HTTP 307".into())
        );
        // It is asked again, and again, until there is no time left.
        let busy = hurried(http("503 later", ""));
        assert_eq!(busy, Unanswered::Busy);
        assert_eq!(hurried(None), Unanswered::Slow(Duration::from_millis(700)));
        // The answer breaks off.
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{\"ver";
        let why = why(Some(cut.into()));
        assert!(matches!(why, Unanswered::Unreachable(_)), "{why}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let why = ask(nobody.unwrap(), 20_000).err().unwrap();
        assert_eq!(why, Unanswered::Unreachable("connection refused".into()));
    }

    #[test]
    fn a_node_is_known_by_its_own_authority_and_knows_the_token() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let ca = write("ca.pem", made.cert.pem());
        let token = write("token", "secret-token\n".to_owned());
        let server = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let whole = r#"{"version":1,"node":1,"nodes":2,"told":{"Ok":{"edges":null}},"covers":[]}"#;
        let answer = move |headers: axum::http::HeaderMap| async move {
            match headers.get("authorization").map(|v| v.as_bytes()) {
                Some(b"Bearer secret-token") => (StatusCode::OK, whole),
                _ => (StatusCode::UNAUTHORIZED, ""),
            }
        };
        let router = axum::Router::new().route("/api/v1/index", axum::routing::post(answer));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        server.spawn(async move {
            let keys = axum_server::tls_rustls::RustlsConfig::from_pem(cert.into(), key.into());
            let server = axum_server::from_tcp_rustls(listener, keys.await.unwrap()).unwrap();
            server.serve(router.into_make_service()).await.unwrap();
        });
        let with = |token: Option<&std::path::Path>, ca: Option<&std::path::Path>| {
            let peer = Peer {
                token_file: token.map(Into::into),
                ca_file: ca.map(Into::into),
                ..peer(format!("https://{address}"))
            };
            way(&peer, 20_000).ask(&question()).err()
        };
        assert_eq!(with(Some(&token), Some(&ca)), None);
        assert_eq!(with(None, Some(&ca)), Some(Unanswered::Forbidden));
        let unknown = with(Some(&token), None);
        assert!(
            matches!(unknown, Some(Unanswered::Unreachable(_))),
            "{unknown:?}"
        );
    }

    #[test]
    fn a_start_is_refused_where_a_share_would_be_missing() {
        let refused = |search: &str, roles: &[Role], kafka: bool| {
            let kafka = match kafka {
                true => "bus: {kafka: {brokers: ['b:9092']}}\n",
                false => "",
            };
            let text = format!("{kafka}search: {search}\n");
            let config = crate::config::parse(&text, &|_| None).unwrap();
            let roles = roles.iter().copied().collect();
            check(&config, &roles).err().map(|e| format!("{e:?}"))
        };
        let both = "{nodes: 2, node: 1, peers: [{node: 0, url: 'https://a'}, {node: 1, url: 'https://b'}]}";
        let other = "{nodes: 2, node: 1, peers: [{node: 0, url: 'https://a'}]}";
        assert_eq!(refused(both, &[Role::Api], true), None);
        assert_eq!(refused(other, &[Role::Api, Role::Index], true), None);
        assert_eq!(refused("{nodes: 2}", &[Role::Index], true), None);
        assert_eq!(refused("{nodes: 2}", &[Role::Api], false), None);
        assert_eq!(refused("{nodes: 1}", &[Role::Api], true), None);
        let words = refused(other, &[Role::Api], true).unwrap();
        assert!(
            words.contains("share 1 of the index is nowhere to be asked"),
            "{words}"
        );
        assert!(words.contains("hint: name every index node"), "{words}");
        let words = refused("{nodes: 3}", &[Role::Api], true).unwrap();
        assert!(words.contains("shares 0, 1, 2"), "{words}");
    }

    #[test]
    fn addresses_that_would_give_the_token_away_are_refused() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let wrong = |peer: &Peer| client(peer).err().map(|e| format!("{e:#}"));
        for (url, words) in [
            ("http://index-1:7171", Some("in clear")),
            ("https://a:b@index-1:7171", Some("has a login")),
            ("index-1:7171", Some("no way to a node")),
            ("", Some("no address")),
            ("ftp://index-1", Some("use https")),
            ("https://index-1:7171", None),
            ("http://127.0.0.1:7171", None),
            ("http://[::1]:7171", None),
        ] {
            let told = wrong(&peer(url.to_owned()));
            match words {
                None => assert_eq!(told, None, "{url}"),
                Some(words) => assert!(told.as_ref().unwrap().contains(words), "{url}: {told:?}"),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "\n").unwrap();
        let with = |token: bool, ca: bool| Peer {
            token_file: token.then(|| file.clone()),
            ca_file: ca.then(|| file.clone()),
            ..peer("https://index-1".into())
        };
        assert!(wrong(&with(true, false)).unwrap().contains("is empty"));
        assert!(
            wrong(&with(false, true))
                .unwrap()
                .contains("no certificate")
        );
        let open = Peer {
            allow_http: true,
            ..peer("http://index-1:7171".into())
        };
        assert_eq!(wrong(&open), None);
    }
}
