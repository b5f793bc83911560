//! Who says it: the process, by OpenTelemetry's names.

use super::destination::pairs;
use super::value::Attributes;
use crate::caller;
use serde_json::{Value, json};

/// Attributes of `OTEL_RESOURCE_ATTRIBUTES` that are taken over.
const MAX_GIVEN: usize = 64;

/// The process that all of a message is about.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    service: String,
    pid: u32,
    /// When it started, in the kernel's ticks: a pid comes again.
    started: u64,
    /// That of the pid: containers may share the name of their host, and begin with the pid 1 each. 0 where unknown.
    pid_namespace: u64,
    /// By `OTEL_RESOURCE_ATTRIBUTES`.
    given: Vec<(String, String)>,
}

impl Resource {
    pub(crate) fn new(service: &str, pid: u32, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut given = env("OTEL_RESOURCE_ATTRIBUTES").map(|text| pairs(&text)).unwrap_or_default();
        given.truncate(MAX_GIVEN);
        let started = caller::start_ticks_of("self").unwrap_or_default();
        let pid_namespace = caller::pid_namespace_of("self").unwrap_or_default();
        Self { service: service.to_owned(), pid, started, pid_namespace, given }
    }

    pub(crate) fn to_json(&self) -> Value {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        // One writer to each series: of two processes of a service each has its own.
        let instance = format!("{host}:{}:{}:{}", self.pid, self.started, self.pid_namespace);
        let own = [
            ("service.name", self.service.as_str()),
            ("service.instance.id", instance.as_str()),
            ("host.name", host.as_str()),
        ];
        let is_given = |key: &str| self.given.iter().any(|(name, _)| name == key);
        // The service's name is the one that the ledger and the outbox have.
        let own = own.iter().filter(|(key, _)| *key == "service.name" || !is_given(key));
        let given =
            self.given.iter().filter(|(key, _)| !matches!(key.as_str(), "service.name" | "process.pid"));
        let attributes =
            own.fold(Attributes::default(), |attributes, (key, value)| attributes.text(key, value));
        let attributes = attributes.number("process.pid", u64::from(self.pid));
        let attributes =
            given.fold(attributes, |attributes, (key, value)| attributes.text(key, value)).into_json();
        json!({ "attributes": attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &str) -> Vec<(String, String)> {
        let env = |name: &str| (name == "OTEL_RESOURCE_ATTRIBUTES").then(|| given.to_owned());
        attributes(&Resource::new("shop", std::process::id(), &env))
    }

    fn attributes(resource: &Resource) -> Vec<(String, String)> {
        let json = resource.to_json();
        let value = |entry: &Value| entry["value"].as_object().unwrap().values().next().unwrap().clone();
        let pair = |entry: &Value| {
            (entry["key"].as_str().unwrap().to_owned(), value(entry).as_str().unwrap().to_owned())
        };
        json["attributes"].as_array().unwrap().iter().map(pair).collect()
    }

    #[test]
    fn the_environment_adds_to_a_process_and_names_neither_its_service_nor_its_pid() {
        let attributes = read(
            "deployment.environment.name=prod, team=a%20b%2Cc,service.name=other,process.pid=1,broken,=x",
        );
        let of = |key: &str| {
            let mut found =
                attributes.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
            (found.next(), found.next())
        };
        assert_eq!(of("service.name"), (Some("shop"), None));
        assert_eq!(of("process.pid"), (Some(std::process::id().to_string().as_str()), None));
        assert_eq!(of("deployment.environment.name"), (Some("prod"), None));
        assert_eq!(of("team"), (Some("a b,c"), None));
        assert!(of("service.instance.id").0.unwrap().contains(&format!(":{}:", std::process::id())));
        let given = read("service.instance.id=blue,host.name=web-1");
        let named = given.iter().filter(|(key, _)| key == "service.instance.id" || key == "host.name");
        assert_eq!(named.map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["blue", "web-1"]);
    }
    #[test]
    fn the_first_processes_of_two_containers_with_one_host_name_are_two_instances() {
        let instance = |pid_namespace: u64| {
            let (service, given) = ("shop".to_owned(), Vec::new());
            let found = attributes(&Resource { service, pid: 1, started: 4_242, pid_namespace, given });
            found.into_iter().find(|(name, _)| name == "service.instance.id").unwrap().1
        };
        assert_ne!(instance(4_026_531_836), instance(4_026_532_201));
        assert!(instance(4_026_531_836).ends_with(":1:4242:4026531836"));
        let own = read("").into_iter().find(|(name, _)| name == "service.instance.id").unwrap().1;
        let namespace = caller::pid_namespace_of("self").unwrap();
        assert!(own.ends_with(&format!(":{namespace}")), "{own}");
    }
}
