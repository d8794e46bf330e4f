use super::*;

fn read(yaml: &str, reading: Reading) -> Option<Condition> {
    let arrival = Arrival::of(&["mesh".to_owned(), "edge".to_owned()], "shop");
    Condition::of(&serde_saphyr::from_str(yaml).expect("a match"), &arrival, reading)
}

fn condition(yaml: &str) -> Condition {
    read(yaml, Reading::Usual).expect("a match that can hold")
}

#[test]
fn what_every_request_satisfies_is_a_catch_all() {
    for (text, want) in [
        ("{}", true),
        ("{uri: {prefix: /}}", true),
        ("{uri: {regex: .*}}", true),
        ("{uri: {regex: /.*}}", true),
        ("{uri: {regex: '*'}}", false),
        ("{method: {regex: '*'}}", true),
        ("{gateways: [mesh, edge]}", true),
        ("{gateways: [mesh, shop/edge, more]}", true),
        ("{gateways: [mesh]}", false),
        ("{headers: {user-agent: {regex: .*}}}", true),
        ("{headers: {x-beta: {regex: .*}}}", false),
        ("{uri: {prefix: /pay}}", false),
        ("{port: 80}", false),
    ] {
        assert_eq!(condition(text).is_catch_all(), want, "{text}");
    }
}

#[test]
fn istio_ends_the_list_only_for_these() {
    for (text, want) in [
        ("{}", true),
        ("{uri: {prefix: /}}", true),
        ("{uri: {prefix: /}, ignoreUriCase: true}", true),
        ("{uri: {regex: .*}}", true),
        ("{uri: {}}", true),
        ("{gateways: [mesh, edge], sourceLabels: {app: a}}", true),
        ("{uri: {regex: /.*}}", false),
        ("{uri: {regex: .+}}", false),
        ("{uri: {regex: '^.*$'}}", false),
        ("{headers: {user-agent: {regex: .*}}}", false),
        ("{authority: {regex: .*}}", false),
        ("{method: {regex: .*}}", false),
        ("{queryParams: {a: {regex: .*}}}", false),
        ("{withoutHeaders: {a: {}}}", false),
        ("{port: 80}", false),
        ("{sourceNamespace: shop}", false),
    ] {
        let condition = read(text, Reading::Strict).expect(text);
        assert_eq!(condition.is_catch_all(), want, "{text}");
    }
}

#[test]
fn some_matches_can_never_hold() {
    for (text, want) in [
        ("{withoutHeaders: {a: {regex: .*}}}", false),
        ("{withoutHeaders: {a: {}}}", true),
        ("{withoutHeaders: {a: {regex: .+}}}", true),
        ("{headers: {a: {}}, withoutHeaders: {a: {}}}", false),
        ("{headers: {a: {exact: b}}, withoutHeaders: {a: {prefix: b}}}", false),
        ("{headers: {a: {exact: c}}, withoutHeaders: {a: {prefix: b}}}", true),
        ("{headers: {a: {exact: b}, A: {exact: c}}}", false),
        ("{gateways: [other]}", false),
    ] {
        assert_eq!(read(text, Reading::Strict).is_some(), want, "{text}");
    }
}

#[test]
fn only_an_opt_in_makes_traffic_targeted() {
    for (text, want) in [
        ("{headers: {x-beta: {exact: '1'}}}", true),
        ("{headers: {x-beta: {}}}", true),
        ("{headers: {x-beta: {regex: .*}}}", false),
        ("{headers: {cookie: {regex: '.*beta=1.*'}}}", true),
        ("{headers: {cookie: {}}}", false),
        ("{headers: {user-agent: {regex: '.*Firefox.*'}}}", false),
        ("{queryParams: {beta: {exact: 'yes'}}}", true),
        ("{sourceLabels: {app: tester}}", true),
        ("{sourceLabels: {app: tester}, gateways: [edge]}", false),
        ("{headers: {'@request.auth.claims.group': {exact: beta}}}", true),
        ("{withoutHeaders: {x-internal: {}}}", false),
        ("{uri: {prefix: /pay}}", false),
        ("{}", false),
    ] {
        assert_eq!(condition(text).is_targeted(), want, "{text}");
    }
}

#[test]
fn the_wider_condition_covers() {
    for (outer, inner, want) in [
        ("{}", "{uri: {prefix: /pay}}", true),
        ("{uri: {prefix: /pay}}", "{}", false),
        ("{uri: {prefix: /p}}", "{uri: {prefix: /pay}}", true),
        ("{uri: {prefix: /p}}", "{uri: {exact: /pay}}", true),
        ("{uri: {exact: /pay}}", "{uri: {prefix: /pay}}", false),
        ("{uri: {prefix: /p}}", "{uri: {prefix: /pay}, headers: {a: {exact: b}}}", true),
        ("{headers: {A: {}}}", "{headers: {a: {exact: b}}}", true),
        ("{withoutHeaders: {a: {exact: b}}}", "{withoutHeaders: {a: {}}}", true),
        ("{withoutHeaders: {a: {}}}", "{withoutHeaders: {a: {exact: b}}}", false),
        ("{sniHosts: ['*.shop']}", "{sniHosts: [a.shop, b.shop]}", true),
        ("{withoutHeaders: {a: {exact: b}}}", "{headers: {a: {exact: c}}}", true),
        ("{withoutHeaders: {a: {exact: b}}}", "{}", false),
        ("{withoutHeaders: {a: {exact: ''}}}", "{withoutHeaders: {a: {}}}", false),
        ("{uri: {prefix: /A}, ignoreUriCase: true}", "{uri: {exact: /ab}}", true),
        ("{uri: {prefix: /A}}", "{uri: {exact: /Ab}, ignoreUriCase: true}", false),
        ("{uri: {exact: /A}, ignoreUriCase: true}", "{uri: {exact: /a}}", true),
        ("{headers: {a: {regex: .*}}}", "{headers: {a: {exact: b}}}", true),
        ("{headers: {a: {regex: b}}}", "{headers: {a: {exact: b}}}", false),
        ("{destinationSubnets: [10.0.0.0/8]}", "{destinationSubnets: [10.1.0.0/16]}", true),
    ] {
        assert_eq!(condition(outer).covers(&condition(inner)), want, "{outer} over {inner}");
    }
}

#[test]
fn two_conditions_meet_where_both_hold() {
    let both =
        condition("{uri: {prefix: /pay}}").intersection(&condition("{method: {exact: GET}}"));
    assert_eq!(both, Some(condition("{uri: {prefix: /pay}, method: {exact: GET}}")));
    assert_eq!(
        condition("{uri: {exact: /a}}").intersection(&condition("{uri: {exact: /b}}")),
        None
    );
    let both = condition("{headers: {a: {regex: b.*}}}")
        .intersection(&condition("{headers: {a: {prefix: b}}}"))
        .expect("both can hold");
    assert!(condition("{headers: {a: {prefix: b}}}").covers(&both));
    assert!(!both.covers(&condition("{headers: {a: {prefix: b}}}")));
    assert!(condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /b}}")));
    assert!(!condition("{uri: {prefix: /a}}").excludes(&condition("{uri: {prefix: /a/b}}")));
}

#[test]
fn the_index_finds_what_reading_from_the_top_finds() {
    let texts = [
        "{uri: {prefix: /a}, headers: {x: {exact: '1'}}}",
        "{uri: {prefix: /a/b}}",
        "{uri: {prefix: /A}, ignoreUriCase: true}",
        "{uri: {exact: /c}}",
        "{uri: {regex: '/d[0-9]+'}}",
        "{headers: {x: {}}}",
        "{headers: {x: {regex: 'a|b'}}}",
        "{withoutHeaders: {x: {exact: '2'}}, uri: {prefix: /c}}",
        "{method: {exact: GET}, port: 80}",
        "{sniHosts: ['*.shop', a.com]}",
        "{sniHosts: ['*shop']}",
        "{sourceLabels: {app: a}}",
        "{gateways: [edge]}",
        "{queryParams: {q: {exact: '1'}}}",
        "{destinationSubnets: [10.0.0.0/8]}",
        "{sniHosts: [b.shop]}",
        "{destinationSubnets: [10.0.0.1]}",
        "{uri: {exact: /a/b/c}, headers: {x: {exact: '1'}}, method: {exact: GET}, port: 80}",
        "{headers: {x: {exact: '1'}}, uri: {prefix: /cc}}",
    ];
    let all = texts.map(condition);
    let index = ConditionIndex::new(all.iter().enumerate());
    let meet = all.iter().flat_map(|a| all.iter().filter_map(|b| a.intersection(b)));
    for asked in meet.chain([Condition::default()]) {
        let slow = all.iter().position(|own| own.covers(&asked));
        assert_eq!(index.first_covering(&asked).map(|(at, _)| at), slow, "{asked:?}");
    }
}

#[test]
fn on_a_known_port_a_match_for_it_asks_for_nothing_and_one_for_another_is_none() {
    let own: RouteMatch = serde_saphyr::from_str("{port: 9090}").expect("a match");
    let read = |port| {
        let arrival = Arrival::at("mesh", "shop").of_protocol(Protocol::Tcp).on_port(port);
        Condition::of(&own, &arrival, Reading::Strict)
    };
    assert_eq!(read(Some(9090)), Some(Condition::default()));
    assert_eq!(read(Some(9091)), None);
    assert!(read(None).is_some_and(|own| !own.is_catch_all()));
}

#[test]
fn a_tls_route_without_a_match_takes_nothing() {
    for (protocol, want) in [(Protocol::Tls, 0), (Protocol::Tcp, 1)] {
        let arrival = Arrival::at("mesh", "shop").of_protocol(protocol);
        let found = Condition::alternatives(&Route::default(), &arrival, Reading::Strict);
        assert_eq!(found.len(), want, "{protocol:?}");
    }
}
