//! The document that is served describes what is routed, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::collections::BTreeSet;

use goldcrest_api::{OPENAPI, ROUTES};
use serde_json::Value;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn every_route_is_described_and_every_description_is_routed() {
    let document = document();
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| (path.clone(), method.to_uppercase()))
        })
        .collect();
    let routed: BTreeSet<_> = ROUTES
        .iter()
        .map(|route| (route.path.to_owned(), route.method.name().to_owned()))
        .collect();
    assert_eq!(described, routed);
}

/// All that is referred to in a document.
fn references<'d>(value: &'d Value, found: &mut BTreeSet<&'d str>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.insert(reference);
            }
            fields.values().for_each(|field| references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_schema_that_is_named_is_there_and_used() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let there: BTreeSet<_> = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
        .map(|name| format!("#/components/schemas/{name}"))
        .collect();
    // What is used in the whole configuration alone is described there.
    let found: BTreeSet<_> = found.into_iter().map(str::to_owned).collect();
    assert_eq!(found, there);
}

/// A value of a schema, with every field.
fn example(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return example(document, &document["components"]["schemas"][name]);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return example(document, &parts[0]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values[0].clone();
    }
    if schema["format"] == "ipv4" {
        return schema["default"].clone();
    }
    match schema["type"].as_str() {
        Some("string") => "a".into(),
        Some("boolean") => false.into(),
        Some("integer") => schema["minimum"].as_u64().unwrap_or(0).into(),
        Some("array") => vec![example(document, &schema["items"])].into(),
        Some("object") => schema["properties"]
            .as_object()
            .map(|fields| {
                let fields = fields.iter();
                fields
                    .map(|(name, field)| (name.clone(), example(document, field)))
                    .collect()
            })
            .unwrap_or_else(|| Value::Object(Default::default())),
        _ => Value::Null,
    }
}

#[test]
fn every_field_that_is_described_is_read_and_no_other() {
    let document = document();
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.name().to_lowercase()];
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let path = route
            .path
            .replace("{drive_id}", "a")
            .replace("{iface_id}", "a");
        let mut body = example(&document, schema);
        let read = |body: &Value| {
            goldcrest_api::Call::read(route.method.name(), &path, body.to_string().as_bytes())
        };
        if let Err(error) = read(&body) {
            panic!(
                "{} {path} does not read {body}: {error}",
                route.method.name()
            );
        }
        if route.path != "/mmds" {
            body["unknown"] = 1.into();
            assert!(
                read(&body).is_err(),
                "{} {path} reads {body}",
                route.method.name()
            );
        }
    }
}
