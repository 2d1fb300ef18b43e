//! A connection to Redis with a deadline on every command, and the functions that run inside it.
//! Knows how Redis fails and which life of it this is; not what is stored.

use std::time::Duration;

use redis::{Client, Cmd, Connection, Pipeline, RedisError, Value};

use super::Settings;
use crate::store::StoreError;

/// Older ones lack what the functions call.
const VERSION_MIN: (u32, u32) = (7, 0);

/// The functions, in the order of `SOURCES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Hello,
    Place,
    Commit,
    Cancel,
    Merge,
    Changes,
    Own,
    Close,
    Floor,
    Fold,
    Readable,
    Lease,
    Begin,
    Bind,
    Raw,
    Keep,
}

macro_rules! source {
    ($file:literal) => {
        concat!(include_str!("lua/common.lua"), include_str!(concat!("lua/", $file)))
    };
}

const SOURCES: [&str; 16] = [
    source!("hello.lua"),
    source!("place.lua"),
    source!("commit.lua"),
    source!("cancel.lua"),
    source!("merge.lua"),
    source!("changes.lua"),
    source!("own.lua"),
    source!("close.lua"),
    source!("floor.lua"),
    source!("fold.lua"),
    source!("readable.lua"),
    source!("lease.lua"),
    source!("begin.lua"),
    source!("bind.lua"),
    source!("raw.lua"),
    source!("keep.lua"),
];

pub struct Link {
    settings: Settings,
    client: Client,
    connection: Option<Connection>,
    /// The functions' names in Redis: the digests of their sources.
    names: Vec<String>,
    /// Which life of Redis the last connection met; another one after it was emptied, restarted or replaced.
    token: String,
}

impl Link {
    /// Connects, and refuses a Redis that cannot keep the promises.
    pub fn open(settings: Settings) -> Result<Self, StoreError> {
        let client = Client::open(settings.url.as_str())
            .map_err(|error| StoreError::Engine(format!("{} is no address of a Redis: {error}", settings.url)))?;
        let mut link = Self { settings, client, connection: None, names: Vec::new(), token: String::new() };
        link.ready()?;
        Ok(link)
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    pub fn key(&self, parts: &[&str]) -> String {
        self.settings.key(parts)
    }

    /// Connected, and `token` is of the Redis that is connected to.
    pub fn ready(&mut self) -> Result<&mut Connection, StoreError> {
        if self.connection.is_none() {
            self.connect()?;
        }
        self.connection.as_mut().ok_or_else(|| StoreError::Unavailable("not connected".into()))
    }

    fn connect(&mut self) -> Result<(), StoreError> {
        let deadline = Duration::from_millis(self.settings.deadline_ms);
        let connect = || {
            let mut connection = self.client.get_connection_with_timeout(deadline)?;
            connection.set_read_timeout(Some(deadline))?;
            connection.set_write_timeout(Some(deadline))?;
            let info: String = redis::cmd("INFO").arg("everything").query(&mut connection)?;
            let load = |source: &&str| redis::cmd("SCRIPT").arg("LOAD").arg(*source).query(&mut connection);
            let names: Vec<String> = SOURCES.iter().map(load).collect::<Result<_, RedisError>>()?;
            Ok((connection, info, names))
        };
        let (connection, info, names) = connect().map_err(failure)?;
        check(&info)?;
        self.names = names;
        let mut hello = redis::cmd("EVALSHA");
        hello.arg(&self.names[Function::Hello as usize]).arg(1).arg(self.key(&[]));
        hello.arg(format!("{:016x}", rand::random::<u64>())).arg(field(&info, "run_id").unwrap_or_default());
        hello.arg(self.settings.clock.now());
        self.connection = Some(connection);
        match self.query(&hello)? {
            Value::BulkString(token) => self.token = String::from_utf8_lossy(&token).into_owned(),
            other => return Err(unexpected(&other)),
        }
        Ok(())
    }

    /// Runs one of the functions.
    pub fn call(&mut self, function: Function, arguments: &[&[u8]]) -> Result<Value, StoreError> {
        self.ready()?;
        for _ in 0..2 {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&self.names[function as usize]).arg(1).arg(self.key(&[]));
            for argument in arguments.iter() {
                command.arg(*argument);
            }
            match self.query(&command) {
                // Somebody has made Redis forget its functions: it is told them again, once.
                Err(StoreError::Unavailable(reason)) if reason.contains("NoScript") => {
                    self.connection = None;
                    self.connect()?;
                }
                outcome => {
                    if outcome.as_ref().is_ok_and(is_another_life) {
                        self.disconnect();
                    }
                    return outcome;
                }
            }
        }
        Err(StoreError::Unavailable("Redis forgets its functions".into()))
    }

    /// The next command takes a new connection, and learns which life of Redis it meets.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    pub fn query(&mut self, command: &Cmd) -> Result<Value, StoreError> {
        let connection = self.ready()?;
        let outcome = command.query(connection).map_err(failure);
        self.note(outcome)
    }

    pub fn pipe(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, StoreError> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let connection = self.ready()?;
        let outcome = pipeline.query(connection).map_err(failure);
        self.note(outcome)
    }

    /// After a failure the connection may stand in the midst of an answer: the next command takes a new one.
    fn note<T>(&mut self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if outcome.is_err() {
            self.connection = None;
        }
        outcome
    }
}

/// The function was meant for another life of Redis: the next connection learns which this is.
fn is_another_life(answer: &Value) -> bool {
    matches!(answer, Value::Array(values) if values.first() == Some(&Value::BulkString(b"restarted".to_vec())))
}

/// What an error means for the caller: to be tried again later, or wrong for good.
fn failure(error: RedisError) -> StoreError {
    match error.code() {
        Some("WRONGTYPE" | "ERR" | "NOAUTH" | "WRONGPASS" | "NOPERM" | "CROSSSLOT") => {
            StoreError::Engine(format!("Redis: {error}"))
        }
        _ if error.is_timeout() => StoreError::Unavailable("Redis does not answer in time".into()),
        _ => StoreError::Unavailable(format!("Redis: {error}")),
    }
}

pub fn unexpected(value: &Value) -> StoreError {
    let mut text = format!("{value:?}");
    text.truncate(200);
    StoreError::Corrupt(format!("Redis answered with something else than was asked for: {text}"))
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What must be so for the promises to be kept.
fn check(info: &str) -> Result<(), StoreError> {
    let version = field(info, "redis_version").unwrap_or("0");
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < VERSION_MIN {
        let (major, minor) = VERSION_MIN;
        return Err(StoreError::Engine(format!("this Redis is {version}: {major}.{minor} or newer is needed")));
    }
    match field(info, "maxmemory_policy") {
        Some("noeviction") | None => Ok(()),
        Some(policy) => Err(StoreError::Engine(format!(
            "this Redis drops keys when memory is full (maxmemory-policy {policy}), and counts with them: \
             set `maxmemory-policy noeviction`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_that_cannot_keep_the_promises_is_refused() {
        let refusal = |version: &str, policy: &str| {
            let info = format!("# Server\r\nredis_version:{version}\r\nmaxmemory_policy:{policy}\r\n");
            check(&info).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refusal("7.0.15", "noeviction"), "");
        assert_eq!(refusal("10.1.0", "noeviction"), "");
        assert!(refusal("6.2.7", "noeviction").contains("6.2.7: 7.0 or newer"));
        assert!(refusal("7.2.0", "allkeys-lru").contains("maxmemory-policy noeviction"));
    }
}
