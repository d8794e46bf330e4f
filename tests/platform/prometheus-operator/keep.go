// Package crds imports one package of github.com/prometheus-operator/prometheus-operator, so that go.mod keeps the requirement.
package crds

import _ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
