use super::*;
#[test]
fn dump() {
    use crate::machine::{Describe, explore::*};
    for (name, config) in [("streamed", Transaction::small()), ("stored", Transaction::small_stored())] {
        let found = explore_with::<Transaction>(config, crate::testing::first_instant(), Bounds::default());
        match found {
            Ok(found) => {
                println!("== {name} {} situations", found.situations);
                let on: Vec<_> = found.events.iter().chain(&found.timers).cloned().collect();
                for state in &found.states {
                    for on in &on {
                        let mut next: Vec<String> = Vec::new();
                        for e in found.edges.iter().filter(|e| e.from == *state && e.on == *on) {
                            let n = format!("{}[{}]", if e.is_ignored() { "—" } else { e.to }, e.actions.join(","));
                            if !next.contains(&n) {
                                next.push(n);
                            }
                        }
                        if !next.is_empty() && next != ["—[]"] {
                            println!("{state} | {on} | {}", next.join(" OR "));
                        }
                    }
                }
            }
            Err(error) => println!("{error}"),
        }
    }
}
