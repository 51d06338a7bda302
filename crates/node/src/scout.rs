//! Asks engines what they have and whether they are well.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, Request};
use seawall_kernel::Input;
use seawall_model::{EngineId, ReplicaId, limits};
use tokio::sync::mpsc;

use crate::app::{App, Live};
use crate::config::plan::EngineRoute;
use crate::config::{EngineConfig, Url};
use crate::discover::{self, Answer, Candidate};
use crate::gateway::attempt;
use crate::reach;
use crate::tasks::{Kind, Tasks};
use crate::upstream::{self, Client, Failed, Sending};

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
            let healthy = healthy(&probe, replica).await;
            probe.seat.tell(Input::Probed { replica, healthy });
            drop(seat);
        });
    }
}

async fn healthy(app: &App, id: ReplicaId) -> bool {
    let live = app.live.load_full();
    let Some(replica) = live.routes.replica(id) else {
        return false;
    };
    let (Some(engine), Some(client)) =
        (live.routes.engine(replica.engine), live.clients.get(&replica.engine))
    else {
        return false;
    };
    let asked = ask(client, &replica.url, &engine.health_path, engine_headers(engine));
    let heard = tokio::time::timeout(PROBE_WAIT, asked).await.unwrap_or(Err(None));
    note(app, &live, id, &heard);
    // Any answer below 500 is a sign of life: a provider may well refuse the path.
    matches!(heard, Ok((status, _)) if status < 500)
}

/// A status and a body, or why there are none, where that is known.
type Heard = Result<(u16, bytes::Bytes), Option<Failed>>;

fn note(app: &App, live: &Live, replica: ReplicaId, heard: &Heard) {
    match heard {
        Ok(answer) => reach::note(app, live, replica, Ok(answer)),
        Err(Some(failed)) => reach::note::<()>(app, live, replica, Err(failed)),
        Err(None) => {}
    }
}

fn engine_headers(engine: &EngineRoute) -> HeaderMap {
    let mut headers = HeaderMap::new();
    attempt::credentials(&mut headers, engine);
    headers
}

/// Asks for one path; the status and the body.
async fn ask(client: &Client, url: &Url, path: &str, headers: HeaderMap) -> Heard {
    let mut request = Request::new(Sending::none());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = url.join(path).map_err(|_| None)?;
    *request.headers_mut() = headers;
    let response = client.request(request, true).await.map_err(Some)?;
    let status = response.status().as_u16();
    let body = crate::body::read(response.into_body(), LIST_BYTES_MAX).await;
    Ok((status, body.map_err(|_| None)?))
}

/// Asks one engine for its models.
async fn ask_models(client: &Client, url: &Url, headers: HeaderMap, wait: Duration) -> Heard {
    let asked = ask(client, url, "/v1/models", headers);
    tokio::time::timeout(wait, asked).await.unwrap_or(Err(None))
}

/// What it said.
fn models_in(heard: &Heard) -> Answer {
    match heard {
        Ok((200, body)) => match seawall_wire::models::parse_models(body) {
            Ok(models) => Answer::Models(models.into_iter().map(Into::into).collect()),
            Err(_) => Answer::Other,
        },
        Ok((status, _)) => Answer::Status(*status),
        Err(_) => Answer::Silent,
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
            window: limits::STREAM_WINDOW_BYTES,
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
            models_in(&ask_models(&client, &candidate.url, headers, wait).await)
        }));
    }
    let mut answers = Vec::with_capacity(asking.len());
    for asked in asking {
        answers.push(asked.await.unwrap_or(Answer::Silent));
    }
    answers
}

/// What an engine's replicas said they have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Every model that one of them has, in the order they were said.
    pub models: Vec<Arc<str>>,
    /// Do they have different ones?
    pub differ: bool,
}

impl Listed {
    /// What one more replica said. A model that only some have is served all the same: one
    /// replica that was set up wrongly must not take the engine's models away.
    fn hear(before: Option<Self>, models: Vec<Arc<str>>) -> Self {
        let Some(mut listed) = before else {
            return Self { models, differ: false };
        };
        let new: Vec<_> = models.iter().filter(|model| !listed.models.contains(*model)).cloned().collect();
        let lacks = listed.models.iter().any(|model| !models.contains(model));
        listed.differ |= lacks || !new.is_empty();
        listed.models.extend(new);
        listed
    }
}

/// One replica to be asked.
struct Question {
    engine: EngineId,
    name: Arc<str>,
    replica: Option<ReplicaId>,
    url: Url,
}

/// A round of questions takes this long at most; whoever was not asked by then waits for
/// the next.
const ROUND_WAIT: Duration = Duration::from_secs(20);

/// Asks every replica of every engine that is to be asked for its models, several at once.
/// Engines of which no replica gave a list are not in the answer.
pub async fn discovered(app: &Arc<App>) -> BTreeMap<Arc<str>, Listed> {
    let live = app.live.load_full();
    let questions = Arc::new(questions(&live.config.engines, &live.routes));
    let next = Arc::new(AtomicUsize::new(0));
    let until = tokio::time::Instant::now() + ROUND_WAIT;
    let askers = questions.len().min(limits::DISCOVERIES_MAX);
    let asking: Vec<_> = (0..askers)
        .map(|_| {
            let (asker, live) = (app.clone(), live.clone());
            let (questions, next) = (questions.clone(), next.clone());
            app.tasks.spawn(Kind::Discovery, async move {
                let mut heard = Vec::new();
                while tokio::time::Instant::now() < until {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(question) = questions.get(at) else { break };
                    if let Some(models) = put(&asker, &live, question).await {
                        heard.push((at, models));
                    }
                }
                heard
            })
        })
        .collect();
    let mut heard = BTreeMap::new();
    for asked in asking {
        heard.extend(asked.await.unwrap_or_default());
    }
    let mut listed: BTreeMap<Arc<str>, Listed> = BTreeMap::new();
    // In the order of the questions, so that who answers first changes nothing.
    for (at, models) in heard {
        let name = &questions[at].name;
        let sum = Listed::hear(listed.remove(name), models);
        listed.insert(name.clone(), sum);
    }
    listed
}

/// Whom to ask: the first replica of each engine, then the second of each, and so on, so
/// that every engine has had its turn before one that is slow has had two.
fn questions(engines: &[EngineConfig], routes: &crate::config::Routes) -> Vec<Question> {
    let mut questions = Vec::new();
    for engine in engines.iter().filter(|engine| engine.discover) {
        let Some(route) = routes.engines().find(|route| route.name == engine.name) else { continue };
        for (place, url) in engine.urls.iter().enumerate() {
            let (name, replica) = (engine.name.clone(), route.replicas.get(place).copied());
            questions.push((place, Question { engine: route.id, name, replica, url: url.clone() }));
        }
    }
    questions.sort_by_key(|(place, _)| *place);
    questions.into_iter().map(|(_, question)| question).collect()
}

async fn put(app: &App, live: &Live, question: &Question) -> Option<Vec<Arc<str>>> {
    let engine = live.routes.engine(question.engine)?;
    let client = live.clients.get(&question.engine)?;
    let wait = Duration::from_millis(discover::PROVIDER_WAIT_MS_MAX);
    let heard = ask_models(client, &question.url, engine_headers(engine), wait).await;
    if let Some(replica) = question.replica {
        note(app, live, replica, &heard);
    }
    match models_in(&heard) {
        Answer::Models(models) => Some(models),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use seawall_model::EngineKind;

    use super::*;
    use crate::config::plan::{Ids, plan};
    use crate::config::{Config, Discovered};

    fn names(of: &[&str]) -> Vec<Arc<str>> {
        of.iter().map(|name| (*name).into()).collect()
    }

    #[test]
    fn replicas_that_differ_are_told_and_none_takes_a_model_away() {
        let one = Listed::hear(None, names(&["a", "b"]));
        let same = Listed::hear(Some(one.clone()), names(&["b", "a"]));
        assert_eq!(same, one, "the order is the first one's");
        let less = Listed::hear(Some(one.clone()), names(&["a"]));
        assert_eq!((less.models.as_slice(), less.differ), (&names(&["a", "b"])[..], true));
        let other = Listed::hear(Some(one), names(&["c"]));
        assert_eq!((other.models.as_slice(), other.differ), (&names(&["a", "b", "c"])[..], true));
    }

    #[test]
    fn every_engine_is_asked_once_before_any_is_asked_twice() {
        let mut config = Config::bare("d".into());
        let url = |port: u16| Url::parse(&format!("http://10.0.0.1:{port}")).expect("a URL");
        for (name, ports) in [("x", vec![1, 2, 3]), ("y", vec![4]), ("quiet", vec![9]), ("z", vec![5, 6])] {
            let urls = ports.into_iter().map(url).collect();
            let mut engine = EngineConfig::new(name, EngineKind::OpenAi, urls, &config.limits);
            engine.discover = name != "quiet";
            config.engines.push(engine);
        }
        let (_, routes) = plan(&config, &mut Ids::default(), &Discovered::default());
        let asked: Vec<u16> = questions(&config.engines, &routes).iter().map(|q| q.url.port()).collect();
        assert_eq!(asked, [1, 4, 5, 2, 6, 3]);
    }
}
