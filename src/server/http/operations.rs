//! The client behind the form of the page: PUT, GET and DELETE from a browser.
//!
//! It is a client like any other, so its results are as honest: done, certainly not applied, or unknown. Keys and values
//! come in base64url without padding, so they may be any bytes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::read_server;
use super::request::{HttpRefusal, HttpRequest};
use crate::client::{Client, ClientOptions, Operation, check_limits, execute, json};
use crate::cluster::Cluster;
use crate::role::ServerId;

/// Maximum time for an operation, all tries together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A client that performs one operation at a time.
pub struct PageClient {
    options: ClientOptions,
    /// Made with the first operation, and kept: its labels count up, and it opens one session.
    client: Mutex<Option<Client>>,
    /// Once this is true, operations end.
    stop: Arc<AtomicBool>,
}

impl PageClient {
    /// The client of server `me`, which asks servers of this cluster. Its name in log lines is `w` and the number.
    pub fn new(me: ServerId, cluster: Cluster) -> PageClient {
        let options = ClientOptions { timeout: TIMEOUT, ..ClientOptions::new(cluster, format!("w{}", me.0)) };
        PageClient { options, client: Mutex::default(), stop: Arc::default() }
    }

    /// Ends the operation in flight, and every later one.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Performs the operation that a request names; an answer says what became of it, even if that is nothing.
    pub fn perform(&self, request: &HttpRequest) -> Result<String, HttpRefusal> {
        let operation = operation_of(request)?;
        let mut slot = match self.client.try_lock() {
            Ok(slot) => slot,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err((503, "another request of a page is in flight. Nothing was sent; try again".to_string()));
            }
        };
        let failed = |error: crate::client::ClientError| (400, error.to_string());
        let client = match &mut *slot {
            Some(client) => client,
            empty => {
                let mut client = Client::new(self.options.clone()).map_err(failed)?;
                client.stop_when(self.stop.clone());
                empty.insert(client)
            }
        };
        if let Some(text) = request.parameter("server") {
            let server = read_server(text).ok_or((400, format!("'{text}' is not the number of a server")))?;
            client.set_server(server).map_err(failed)?;
        }
        let ended = execute(client, &operation);
        let mut answer = json::operation(&operation, &ended);
        answer["label"] = json!(client.last_label());
        answer["server"] = json!(client.server());
        Ok(answer.to_string())
    }
}

/// Reads the operation of a request.
fn operation_of(request: &HttpRequest) -> Result<Operation, HttpRefusal> {
    let bytes = |name: &str| {
        let text = request.parameter(name).ok_or((400, format!("the parameter {name} is missing")))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|error| (400, format!("the parameter {name} is not base64url: {error}")))
    };
    let key = bytes("key")?;
    let operation = match request.path.as_str() {
        "/put" => Operation::Put { key, value: bytes("value")?, if_version: None },
        "/get" => Operation::Get { key },
        _ => Operation::Delete { key },
    };
    let value: &[u8] = if let Operation::Put { value, .. } = &operation { value } else { &[] };
    check_limits(operation.key(), value).map_err(|error| (400, error.to_string()))?;
    Ok(operation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Member;
    use crate::server::http::request::parse;

    fn asked(target: &str) -> Result<Operation, HttpRefusal> {
        operation_of(&parse(format!("POST {target} HTTP/1.1\r\n\r\n").as_bytes()).unwrap().unwrap())
    }

    #[test]
    fn operation_is_read_from_the_query() {
        let (key, value) = (b"co lor".to_vec(), "\u{fc}ber".as_bytes().to_vec());
        let encoded = [&key, &value].map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
        let query = format!("key={}&value={}", encoded[0], encoded[1]);
        assert_eq!(asked(&format!("/put?{query}")), Ok(Operation::Put { key: key.clone(), value, if_version: None }));
        assert_eq!(asked(&format!("/get?{query}")), Ok(Operation::Get { key: key.clone() }));
        assert_eq!(asked(&format!("/delete?{query}")), Ok(Operation::Delete { key }));
        for wrong in ["/put?key=YQ", "/get", "/get?key=%20", "/get?key=YQ=="] {
            assert_eq!(asked(wrong).unwrap_err().0, 400, "{wrong}");
        }
    }

    #[test]
    fn one_operation_is_performed_at_a_time() {
        let member = Member::new(([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        let cluster = Cluster::from_members("tests", [(1, member)]).unwrap();
        let client = PageClient::new(ServerId(1), cluster);
        let request = parse(b"POST /get?key=YQ HTTP/1.1\r\n\r\n").unwrap().unwrap();
        let _busy = client.client.lock().unwrap();
        assert_eq!(client.perform(&request).unwrap_err().0, 503);
    }
}
