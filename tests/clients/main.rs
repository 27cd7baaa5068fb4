//! The clients of `clients/`, each as a person would run it: its writer writes, the relay carries, everything comes
//! twice, its consumer is killed in the middle and started again. Each event has its effect once.
//!
//! Not among the tests that `cargo test` runs by itself: these fetch packages of four languages. `just clients`.

mod language;
mod scene;

use language::{GO, JAVA, Language, PYTHON, TYPESCRIPT};
use scene::Scene;

/// GIVEN a client WHEN its writer writes two events for each order, all records come twice, and its consumer is killed
/// while it reads THEN the consumer's database has one effect per event, in the order of each aggregate.
async fn each_event_has_one_effect(language: &Language) {
    let built = language.build();
    let scene = Scene::new(language.name).await;
    built.run_writer(&scene, scene::ORDERS);
    scene.relay_all().await;
    scene.repeat_all_records().await;
    scene.write_the_last_event().await;
    let mut consumer = built.start_consumer(&scene);
    scene.wait_for_an_effect(&mut consumer).await;
    consumer.kill();
    let mut consumer = built.start_consumer(&scene);
    scene.wait_for_the_last_effect(&mut consumer).await;
    consumer.kill();
    scene.check_effects().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python() {
    each_event_has_one_effect(&PYTHON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn java() {
    each_event_has_one_effect(&JAVA).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go() {
    each_event_has_one_effect(&GO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typescript() {
    each_event_has_one_effect(&TYPESCRIPT).await;
}

/// What is to be read in a minute stays short.
#[test]
fn each_program_is_short() {
    for language in [PYTHON, JAVA, GO, TYPESCRIPT] {
        for program in language.programs {
            let path =
                format!("{}/clients/{}/{program}", env!("CARGO_MANIFEST_DIR"), language.name);
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{path}: {cause}"));
            assert!(text.lines().count() <= 60, "{path} has {} lines", text.lines().count());
        }
    }
}
