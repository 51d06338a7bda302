//! Asks engines what they have and whether they are well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use seawall_kernel::Input;
use seawall_model::{EngineId, ReplicaId};
use tokio::sync::mpsc;

use crate::app::{App, Live};
use crate::config::plan::EngineRoute;
use crate::config::{Discovered, EngineConfig, Url};
use crate::discover::{self, Answer, Candidate};
use crate::gateway::attempt;
use crate::tasks::{Kind, Tasks};
use crate::upstream::{self, Client, Sending};

/// A probe that takes longer has failed: an engine that is well answers its health path
/// in milliseconds even under load.
const PROBE_WAIT: Duration = Duration::from_secs(3);
/// Probes under way at once; more wait their turn.
const PROBES_MAX: usize = 32;
/// Longest list of models read: 4 MiB hold some ten thousand of them.
const LIST_BYTES_MAX: usize = 4 << 20;

/// Runs probes that the kernel asks for. Ends with the process.
pub async fn run_probes(app: Arc<App>, mut asked: mpsc::Receiver<ReplicaId>) {
    let seats = Arc::new(tokio::sync::Semaphore::new(PROBES_MAX));
    while let Some(replica) = asked.recv().await {
        let Ok(seat) = seats.clone().acquire_owned().await else {
            return;
        };
        let probe = app.clone();
        app.tasks.spawn(Kind::Probe, async move {
            let healthy = healthy(&probe.live.load_full(), replica).await;
            probe.seat.tell(Input::Probed { replica, healthy });
            drop(seat);
        });
    }
}

async fn healthy(live: &Live, id: ReplicaId) -> bool {
    let Some(replica) = live.routes.replica(id) else {
        return false;
    };
    let (Some(engine), Some(client)) =
        (live.routes.engine(replica.engine), live.clients.get(&replica.engine))
    else {
        return false;
    };
    let asked = ask(client, &replica.url, &engine.health_path, engine_headers(engine));
    // Any answer below 500 is a sign of life: a provider may well refuse the path.
    matches!(tokio::time::timeout(PROBE_WAIT, asked).await, Ok(Ok((status, _))) if status < 500)
}

fn engine_headers(engine: &EngineRoute) -> HeaderMap {
    let mut headers = HeaderMap::new();
    attempt::credentials(&mut headers, engine);
    headers
}

/// Asks for one path; the status and the body.
async fn ask(
    client: &Client,
    url: &Url,
    path: &str,
    headers: HeaderMap,
) -> Result<(u16, bytes::Bytes), String> {
    let mut request = Request::new(Sending::Whole(None));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = url.join(path).map_err(|why| why.to_string())?;
    *request.headers_mut() = headers;
    let response = client.request(request).await.map_err(|why| why.to_string())?;
    let status = response.status().as_u16();
    Ok((status, crate::body::read(response.into_body(), LIST_BYTES_MAX).await?))
}

/// What one engine says when asked for its models.
async fn models_of(client: &Client, url: &Url, headers: HeaderMap, wait: Duration) -> Answer {
    match tokio::time::timeout(wait, ask(client, url, "/v1/models", headers)).await {
        Ok(Ok((200, body))) => match seawall_wire::models::parse_models(&body) {
            Ok(models) => Answer::Models(models.into_iter().map(Into::into).collect()),
            Err(_) => Answer::Other,
        },
        Ok(Ok((status, _))) => Answer::Status(status),
        _ => Answer::Silent,
    }
}

/// Asks every candidate at once.
pub async fn try_candidates(candidates: &[Candidate], tasks: &Tasks, proxy_from_env: bool) -> Vec<Answer> {
    let mut asking = Vec::with_capacity(candidates.len());
    for candidate in candidates.iter().cloned() {
        let ms = if candidate.local { discover::LOCAL_WAIT_MS_MAX } else { discover::PROVIDER_WAIT_MS_MAX };
        let wait = Duration::from_millis(ms);
        let options = upstream::Options {
            connect: seawall_model::Millis(ms),
            extra_roots: None,
            window: seawall_model::limits::STREAM_WINDOW_BYTES,
            proxy_from_env: proxy_from_env && !candidate.local,
        };
        let Ok(client) = upstream::client(&options, tasks) else {
            continue;
        };
        asking.push(tasks.spawn(Kind::Discovery, async move {
            let mut headers = HeaderMap::new();
            if let Some(key) = &candidate.key {
                attempt::key_header(&mut headers, candidate.kind, key);
            }
            models_of(&client, &candidate.url, headers, wait).await
        }));
    }
    let mut answers = Vec::with_capacity(asking.len());
    for asked in asking {
        answers.push(asked.await.unwrap_or(Answer::Silent));
    }
    answers
}

/// Asks every engine that is to be asked for its models; what does not answer keeps what
/// it said `before`.
pub async fn discovered(
    engines: &[EngineConfig],
    routes: &crate::config::Routes,
    clients: &BTreeMap<EngineId, Client>,
    before: &Discovered,
) -> Discovered {
    let mut found = Discovered::default();
    for engine in engines.iter().filter(|engine| engine.discover) {
        let route = routes.engines().find(|route| route.name == engine.name);
        let asked = route.and_then(|route| Some((route, clients.get(&route.id)?, engine.urls.first()?)));
        let answer = match asked {
            Some((route, client, url)) => {
                let wait = Duration::from_millis(discover::PROVIDER_WAIT_MS_MAX);
                models_of(client, url, engine_headers(route), wait).await
            }
            None => Answer::Silent,
        };
        let models = match answer {
            Answer::Models(models) => models,
            _ => before.models.get(&engine.name).cloned().unwrap_or_default(),
        };
        found.models.insert(engine.name.clone(), models);
    }
    found
}
