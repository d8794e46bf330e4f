{{/*
The expressions of the ValidatingAdmissionPolicies, docs/admission-policy.md. CEL has no functions: what is asked more than once is a
definition here.
*/}}

{{/* A regular expression for names by patterns with a * at either end; of no pattern, one that fits nothing. */}}
{{- define "sluicegate.twin.names" -}}
{{- $all := list -}}
{{- range default list . -}}
{{- $inner := trimPrefix "*" . | trimSuffix "*" | regexQuoteMeta -}}
{{- $all = append $all (printf "%s%s%s" (ternary ".*" "" (hasPrefix "*" .)) $inner (ternary ".*" "" (hasSuffix "*" .))) -}}
{{- end -}}
{{- if $all -}}{{ printf "^(%s)$" (join "|" $all) }}{{- else -}}{{ "^$" }}{{- end -}}
{{- end -}}

{{/* The old routes and the new ones, by protocol, and what they match. */}}
{{- define "sluicegate.twin.sides" -}}
[dyn(oldObject), dyn(object)].map(o, ['http', 'tls', 'tcp'].map(p, (o != null && has(o.spec) && p in o.spec ? o.spec[p] : []).map(r, {
  'raw': dyn(r),
  'match': dyn(has(r.match) && size(r.match) > 0 ? r.match : [{}]),
  'route': dyn(has(r.route) ? r.route : [])
})))
{{- end -}}

{{/* Where a route `r` sends what it takes: each destination with its share, and what its names say. */}}
{{- define "sluicegate.twin.to" -}}
{{- $policy := .Values.policy -}}
[(r.map(d, has(d.weight) ? int(d.weight) : 0) + [0]).sum()].map(total, r.map(d,
    [has(d.destination.subset) ? string(d.destination.subset) : ''].map(subset,
    [string(d.destination.host)].map(written,
    [(written.contains('.') ? written : written + '.' + request.namespace + '.svc.{{ .Values.mesh.domain }}').lowerAscii()].map(host,
    [host.endsWith('.svc.{{ .Values.mesh.domain }}') ? host.split('.')[0] : host].map(service,
    [subset == '' ? service : subset].map(name,
    [name.find('(^|[-_])([vV][0-9]+([._-][0-9]+)*([._-]|$)|[0-9]+([._-][0-9]+)*$)')].map(version, {
      'id': dyn(host + '/' + subset), 'host': dyn(host), 'subset': dyn(subset),
      'name': dyn(subset == '' ? service : service + '/' + subset),
      'share': dyn(size(r) == 1 ? 1.0 : total <= 0 ? 0.0 : double(has(d.weight) ? int(d.weight) : 0) / double(total)),
      'stem': dyn(version == '' ? '' : name.substring(0, name.indexOf(version)).lowerAscii()),
      'version': dyn(version.findAll('[0-9]+').map(n, size(n) > 18 ? n : '000000000000000000'.substring(size(n)) + n).join('.')),
      'role': dyn([subset, service, host, service + '/' + subset].exists(n, n != '' && n.matches({{ include "sluicegate.twin.names" $policy.roles.stable | toJson }})) ? 'stable' :
        [subset, service, host, service + '/' + subset].exists(n, n != '' && n.matches({{ include "sluicegate.twin.names" $policy.roles.canary | toJson }})) ? 'canary' :
        {{ include "sluicegate.twin.role" "subset" }}),
      'roleOfHost': dyn({{ include "sluicegate.twin.role" "service" }})
    })[0])[0])[0])[0])[0])[0]
  ))[0]
{{- end -}}

{{/* What a name says of its role; one that says both says nothing. */}}
{{- define "sluicegate.twin.role" -}}
{{- $stable := printf "%s.matches('(?i)(^|[-_.])(primary|stable)([-_.]|$)')" . -}}
{{- $canary := printf "%s.matches('(?i)(^|[-_.])(canary|preview)([-_.]|$)')" . -}}
({{ $stable }} == {{ $canary }} ? '' : {{ $stable }} ? 'stable' : 'canary')
{{- end -}}

{{/* Whether a match of the uri `u` takes every path. */}}
{{- define "sluicegate.twin.anyPath" -}}
(('prefix' in e.uri && e.uri.prefix in ['', '/']) || ('regex' in e.uri && e.uri.regex in ['.*', '/.*', '^/.*', '^/.*$', '.+', '^.+$']))
{{- end -}}

{{/* Whether an alternative `e` may take all requests that `a` takes; where this is false, some of them are left. */}}
{{- define "sluicegate.twin.may" -}}
e.all(k, k in ['name', 'statPrefix', 'ignoreUriCase', 'gateways'] || (k == 'uri' && {{ include "sluicegate.twin.anyPath" . }}) ||
  (k == 'sourceLabels' && ('gateways' in e || has(dyn(object).spec.gateways))) ||
  (k in ['headers', 'withoutHeaders', 'queryParams', 'sourceLabels'] && size(e[k]) == 0) ||
  (k in a && (e[k] == a[k] ||
    (k == 'uri' ? 'regex' in e.uri || 'regex' in a.uri || 'ignoreUriCase' in e || 'ignoreUriCase' in a ||
      ('prefix' in e.uri && ('prefix' in a.uri ? a.uri.prefix : 'exact' in a.uri ? a.uri.exact : '').startsWith(e.uri.prefix)) :
    k in ['headers', 'withoutHeaders', 'queryParams', 'sourceLabels'] ? e[k].all(h, h in a[k]) :
    !(k in ['port', 'sourceNamespace'])))))
{{- end -}}

{{/* Whether it does for certain. */}}
{{- define "sluicegate.twin.sure" -}}
e.all(k, k in ['name', 'statPrefix', 'ignoreUriCase'] || (k == 'uri' && {{ include "sluicegate.twin.anyPath" . }}) ||
  (k in a && (k == 'uri' ? (!('ignoreUriCase' in a) || 'ignoreUriCase' in e) && (e.uri == a.uri ||
      ('prefix' in e.uri && ('prefix' in a.uri ? a.uri.prefix : 'exact' in a.uri ? a.uri.exact : '').startsWith(e.uri.prefix))) :
    e[k] == a[k])))
{{- end -}}

{{/*
Every kind of requests that the old or the new object tells apart: which route served them and which one will, as far as that is certain. The
first http route that takes them does; of tls and tcp routes Envoy takes the most specific one, and only those with the same match are compared.
*/}}
{{- define "sluicegate.twin.flows" -}}
[0, 1, 2].map(p, (variables.sides[0][p].map(r, r.match) == variables.sides[1][p].map(r, r.match) ?
  variables.sides[1][p].filter(r, !variables.sides[0][p].exists(x, x.route == r.route && x.match == r.match)) :
  variables.sides[1][p] + variables.sides[0][p].filter(r, !variables.sides[1][p].exists(x, x.match == r.match))).map(r, r.match.map(a,
  [variables.sides.map(side, side[p].filter(t, t.match.exists(e, p > 0 ? e == a : {{ include "sluicegate.twin.may" . }})))].map(takers,
    {{ include "sluicegate.twin.odd" . }} || !takers.all(t, size(t) == 0 || t[0].match.exists(e, p > 0 ? e == a : {{ include "sluicegate.twin.sure" . }})) ? dyn({'kind': 'unsure'}) :
    size(takers[0]) == 0 ? dyn({'kind': 'arrives'}) :
    size(takers[1]) == 0 ? dyn({'kind': 'leaves'}) :
    takers[0][0].route == takers[1][0].route ? dyn({'kind': 'stays'}) :
    dyn({'kind': dyn('moves'), 'was': takers[0][0].route, 'is': takers[1][0].route, 'raw': takers[1][0].raw, 'protocol': dyn(['http', 'tls', 'tcp'][p]),
      'existed': dyn(takers.all(t, t[0].match.exists(e, e == a))), 'targeted': dyn({{ include "sluicegate.twin.targeted" . }})})
  )[0])))
{{- end -}}

{{/* Whether it may be that no request is like this: at a gateway that the object is not for, or without a header that reads as empty. */}}
{{- define "sluicegate.twin.odd" -}}
'gateways' in a || ('withoutHeaders' in a && a.withoutHeaders.exists(h, 'regex' in a.withoutHeaders[h] || 'prefix' in a.withoutHeaders[h]))
{{- end -}}

{{/* Whether only clients meet it that asked for it: with a header, a query parameter or a label that not everybody has. */}}
{{- define "sluicegate.twin.targeted" -}}
('sourceLabels' in a && size(a.sourceLabels) > 0) || ['headers', 'queryParams'].exists(k, k in a && a[k].exists(h,
  !(k == 'headers' && h in [':path', 'accept', 'accept-encoding', 'authority', 'host', 'user-agent', 'x-forwarded-for', 'x-forwarded-proto', 'x-request-id']) &&
  !('regex' in a[k][h] && a[k][h].regex in ['.*', '^.*$', '(.*)', '.+', '^.+$', '(.+)'])))
{{- end -}}

{{/*
What moves: for each of these requests every destination, its share before and after, and whether it rises as a canary. A canary is what the
policy or its name calls so, what takes from a stable side, or a later version than the one that it takes most from. Of names that say nothing only
history, age or weight could tell the way forward from the way back: they count as no canary here.
*/}}
{{- define "sluicegate.twin.moves" -}}
variables.flows.map(p, p.map(r, r.filter(f, f.kind == 'moves').map(f,
  [f.was].map(r, {{ include "sluicegate.twin.to" . }}).map(was,
  [f.is].map(r, {{ include "sluicegate.twin.to" . }}).map(is,
  [(was + is).map(d, {
    'name': d.name, 'host': d.host, 'id': d.id, 'stem': d.stem, 'version': d.version,
    'role': d.role != '' ? d.role : (was + is).exists(e, e.host == d.host && e.subset != d.subset) ? dyn('') : d.roleOfHost,
    'from': dyn(([0.0] + was.filter(e, e.id == d.id || (d.subset == '' && e.host == d.host)).map(e, double(e.share))).sum()),
    'to': dyn(([0.0] + is.filter(e, e.id == d.id || (d.subset == '' && e.host == d.host)).map(e, double(e.share))).sum()),
    'kin': dyn(was.exists(c, c.share > 0.0 && (c.host == d.host || is.exists(e, e.id == c.id))) || was.exists(e, e.id == d.id))
  })].map(all,
  [all.filter(d, d.to < d.from - 0.000000001)].map(losers, {
    'was': dyn(was), 'is': dyn(is), 'raw': f.raw, 'protocol': f.protocol, 'targeted': f.targeted,
    'losers': dyn(losers),
    'rising': dyn(all.filter(d, d.to > d.from + 0.000000001).map(d, {
      'name': d.name, 'id': d.id, 'from': dyn(double(d.from) * 100.0), 'to': dyn(double(d.to) * 100.0),
      'added': dyn(!f.existed && !d.kin && d.role != 'stable'),
      'canary': dyn((f.existed || d.kin) && was.exists(c, c.share > 0.0) && (
        d.role != '' && (size(losers) == 0 || d.from > 0.0 || d.kin) ? d.role == 'canary' :
        losers.exists(l, l.role == 'stable') ? true :
        size(losers) == 0 || losers.all(l, l.role == 'canary') ? false :
        d.version != '' && losers.exists(l, l.version != '' && l.stem == d.stem && l.version < d.version && losers.all(x, x.from <= l.from)) &&
          all.exists(x, x.id != d.id && x.from >= d.from)))
    }))
  })[0])[0])[0])[0]
)))
{{- end -}}

{{/* The largest share in percent that a canary at `from` percent may be given in one write. */}}
{{- define "sluicegate.twin.limit" -}}
{{- $step := .step -}}
{{- $ladder := default list $step.ladder -}}
{{- $max := ternary (ternary 50 100 (empty $ladder)) $step.max (kindIs "invalid" $step.max) -}}
{{- $initial := ternary $max $step.initial (kindIs "invalid" $step.initial) -}}
{{- if gt (float64 $initial) (float64 $max) }}{{ $initial = $max }}{{ end -}}
{{- $rungs := list -}}
{{- range $ladder }}{{ $rungs = append $rungs (printf "double(%v)" .) }}{{ end -}}
([{{ .from }} + ({{ .from }} <= 0.0000001 ? double({{ $initial }}) : double({{ $max }})), 100.0]
{{- if $rungs }} + [{{ join ", " $rungs }}].filter(rung, rung > {{ .from }} + 0.000001){{ end }}).min()
{{- end -}}

{{/* The steps that go too far, in words; nothing where none does. */}}
{{- define "sluicegate.twin.steps" -}}
{{- $step := .Values.policy.step -}}
{{- $ladder := default list $step.ladder -}}
{{- $max := ternary (ternary 50 100 (empty $ladder)) $step.max (kindIs "invalid" $step.max) -}}
{{- $rungs := list -}}
{{- range $ladder }}{{ $rungs = append $rungs (printf "double(%v)" .) }}{{ end -}}
variables.moves.map(p, p.map(r, r.filter(m, !m.targeted).map(m,
  ['spec.' + m.protocol + '[' + string(dyn(object).spec[m.protocol].indexOf(m.raw)) + ']: '].map(at,
  [m.rising.filter(d, d.canary && (d.to > {{ include "sluicegate.twin.limit" (dict "step" $step "from" "d.from") }} + 0.000001
{{- if $rungs }} || (![{{ join ", " $rungs }}].exists(rung, rung - d.to < 0.5 && d.to - rung < 0.5) && m.is.exists(e, e.id == d.id && e.share > 0.0)){{ end }})).map(d,
    at + d.name + ' would go from ' + string(int(d.from + 0.5)) + ' % to ' + string(int(d.to + 0.5)) + ' % in one write. Passes now: up to ' +
    string(int({{ include "sluicegate.twin.limit" (dict "step" $step "from" "d.from") }} + 0.000001)) + ' %.\n')].map(alone,
  size(alone) > 0 ? alone.join('') :
  [([0.0] + m.was.filter(e, m.rising.exists(d, d.canary && d.id == e.id)).map(e, double(e.share) * 100.0)).sum()].filter(from,
    [([0.0] + m.is.filter(e, m.rising.exists(d, d.canary && d.id == e.id)).map(e, double(e.share) * 100.0)).sum() - from].exists(rise,
    [size(m.losers) == 0 ? rise : m.losers.filter(l, m.losers.all(x, x.from <= l.from)).map(l, (double(l.from) - double(l.to)) * 100.0)[0]].exists(given,
    [rise < given ? rise : given].exists(together, together > 0.0 && from + together >
      [{{ include "sluicegate.twin.limit" (dict "step" $step "from" "from") }}, from + double({{ $max }})].max() + 0.000001)))).map(from,
    at + 'all canaries together would rise by more than {{ $max }} points in one write. Passes now: up to ' +
    string(int([{{ include "sluicegate.twin.limit" (dict "step" $step "from" "from") }}, from + double({{ $max }})].max() + 0.000001)) + ' % for all of them.\n').join('')
  )[0])[0]
).join('')).join('')).join('')
{{- end -}}

{{/* Weights of several destinations that do not add up, old and new: which route, which destinations, how far off. */}}
{{- define "sluicegate.twin.sums" -}}
{{- $sum := default dict (index .Values.policy.rules "weight-sum") -}}
{{- $total := default 100 $sum.total -}}
[dyn(oldObject), dyn(object)].map(o, ['http', 'tls', 'tcp'].map(p, (o != null && has(o.spec) && p in o.spec ? o.spec[p] : [])
  .filter(r, has(r.route) && size(r.route) > 1 && r.route.all(d, !has(d.weight) || int(d.weight) >= 0))
  .map(r, {'raw': dyn(r), 'to': dyn(r.route.map(d, d.destination.host + '/' + (has(d.destination.subset) ? d.destination.subset : ''))),
    'total': dyn((r.route.map(d, has(d.weight) ? int(d.weight) : 0) + [0]).sum())})
  .filter(r, r.total != {{ int64 $total }} && r.total > 0 && r.total <= 4294967295)
  .map(r, {'raw': r.raw, 'protocol': dyn(p), 'to': r.to, 'total': r.total, 'off': dyn(r.total > {{ int64 $total }} ? r.total - {{ int64 $total }} : {{ int64 $total }} - r.total)})))
{{- end -}}

{{/* Those that were not so before this write, in words. */}}
{{- define "sluicegate.twin.newSums" -}}
{{- $sum := default dict (index .Values.policy.rules "weight-sum") -}}
{{- $total := default 100 $sum.total -}}
[0, 1, 2].map(p, variables.sums[1][p].filter(r,
  size(variables.sums[1][p].filter(x, x.to.all(d, d in r.to) && r.to.all(d, d in x.to))) >
  size(variables.sums[0][p].filter(x, x.off >= r.off && x.to.all(d, d in r.to) && r.to.all(d, d in x.to)))).map(r,
    'spec.' + r.protocol + '[' + string(dyn(object).spec[r.protocol].indexOf(r.raw)) + '].route: the weights add up to ' + string(r.total) + ', not {{ $total }}: Istio divides by the sum. Passes: weights that add up to {{ $total }}.\n').join('')).join('')
{{- end -}}

{{/* Whether the write may be a rollback: those pass whatever else they say. */}}
{{- define "sluicegate.twin.mayBeRollback" -}}
oldObject != null && !variables.flows.exists(p, p.exists(r, r.exists(f, f.kind == 'arrives'))) &&
  !variables.moves.exists(p, p.exists(r, r.exists(m, m.rising.exists(d, d.canary || d.added)))) &&
  (variables.flows.exists(p, p.exists(r, r.exists(f, f.kind in ['unsure', 'leaves']))) ||
    variables.moves.exists(p, p.exists(r, r.exists(m, size(m.rising) > 0 || size(m.losers) > 0))) ||
    ['hosts', 'gateways', 'exportTo'].exists(k, [dyn(oldObject), dyn(object)].map(o, k in o.spec ? o.spec[k] : dyn([])).exists_one(v, v == (k in dyn(object).spec ? dyn(object).spec[k] : dyn([])))))
{{- end -}}

{{/* What is broken for everyone, old and new, by protocol and route: a key, and why. */}}
{{- define "sluicegate.twin.broken" -}}
[dyn(oldObject), dyn(object)].map(o, ['http', 'tls', 'tcp'].map(p, (o != null && has(o.spec) && p in o.spec ? o.spec[p] : []).map(r,
  ((has(r.route) && size(r.route) > 0) || (p == 'http' && (has(r.redirect) || has(r.directResponse) || has(r.delegate))) ? [] :
    [{'key': 'empty ' + p, 'said': ': it neither routes nor answers. Passes: a route.\n'}]) +
  (has(r.route) ? r.route : []).filter(d, {{ include "sluicegate.twin.impossible" "d.destination.host" }}).map(d,
    {'key': 'host ' + d.destination.host, 'said': ': a destination is one host name, and \'' + d.destination.host + '\' is none. Passes: the name of a Service.\n'}) +
  (has(r.route) ? r.route : []).filter(d, has(d.weight) && (int(d.weight) < 0 || int(d.weight) > 2147483647)).map(d,
    {'key': 'weight ' + d.destination.host + '/' + (has(d.destination.subset) ? d.destination.subset : ''), 'said': ': no weight is ' + string(int(d.weight)) + '. Passes: weights from 0 to 100.\n'}) +
  (has(r.route) && size(r.route) > 1 ? [(r.route.map(d, has(d.weight) ? int(d.weight) : 0) + [0]).sum()] : []).filter(total, total == 0 || total > 4294967295).map(total,
    {'key': 'total ' + p + ' ' + r.route.map(d, d.destination.host + '/' + (has(d.destination.subset) ? d.destination.subset : '')).join(' '),
      'said': '.route: the weights of several destinations add up to ' + string(total) + '. Passes: weights that add up to 100.\n'})
)))
{{- end -}}

{{/* Whether nothing can ever have this host. */}}
{{- define "sluicegate.twin.impossible" -}}
{{- $label := "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?" -}}
{{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
(size({{ . }}) > 257 || !{{ . }}.matches('^([*][.])?{{ $label }}([.]{{ $label }})*[.]?$') || {{ . }}.matches('^([*][.])?{{ $byte }}([.]{{ $byte }}){3}$'))
{{- end -}}

{{/* What was not broken before this write, in words. */}}
{{- define "sluicegate.twin.newlyBroken" -}}
[0, 1, 2].map(p, variables.broken[1][p].filter(found, size(found) > 0).map(found, found.filter(f,
  ([0] + variables.broken[1].map(q, ([0] + q.map(o, size(o.filter(x, x.key == f.key)))).sum())).sum() >
  ([0] + variables.broken[0].map(q, ([0] + q.map(o, size(o.filter(x, x.key == f.key)))).sum())).sum()
).map(f, [['http', 'tls', 'tcp'][p]].map(protocol,
  'spec.' + protocol + '[' + string(variables.broken[1][p].indexOf(found)) + ']' + f.said)[0]).join('')).join('')).join('')
{{- end -}}

{{/* Whether an object has any route. */}}
{{- define "sluicegate.twin.hasRoute" -}}
(has(dyn({{ . }}).spec) && ['http', 'tls', 'tcp'].exists(p, p in dyn({{ . }}).spec && size(dyn({{ . }}).spec[p]) > 0))
{{- end -}}

{{/* Whether the policy is for any of the old and new hosts, as written or completed. */}}
{{- define "sluicegate.twin.hosts" -}}
{{- $terms := list -}}
{{- $suffix := printf ".svc.%s" .domain -}}
[dyn(object), dyn(oldObject)].exists(o, o != null && has(o.spec) && has(o.spec.hosts) && o.spec.hosts.exists(h,
  [h, h.contains('.') ? h : h + '.' + request.namespace + '{{ $suffix }}'].exists(h, [{{ range $at, $host := .hosts }}{{ if $at }}, {{ end }}{{ toJson $host }}{{ end }}].exists(p,
    h == p || (!p.contains('.') && !p.startsWith('*') && h == p + '.' + request.namespace + '{{ $suffix }}') || (p.startsWith('*') && h.endsWith(p.substring(1)))))))
{{- end -}}

{{/* The first of what there is to say, and how much more there is: the API server takes one line. */}}
{{- define "sluicegate.twin.first" -}}
[variables.said.split('\n')].map(lines, '{{ . }}: ' + lines[0] + [lines.filter(line, line != '' && line != lines[0]).size()].map(more, more > 0 ? ' (And ' + string(more) + ' more.)' : '')[0])[0]
{{- end -}}
