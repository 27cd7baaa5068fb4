// Reads rendered manifests by the very types of Kubernetes, of Prometheus' operator and of KEDA, and judges those of
// Kubernetes as its API server does, by the server's own code.
//
// A field that its type does not have, a value of another type, or what the server would refuse ends it with the document and
// the cause. It also checks what no type says: selectors fit the labels of the pods, and what a pod mounts is rendered or named
// as foreign.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// ScaledObject is what the chart uses of KEDA's type: its module brings the clients of all clouds.
type ScaledObject struct {
	meta.TypeMeta   `json:",inline"`
	meta.ObjectMeta `json:"metadata"`
	Spec            struct {
		ScaleTargetRef  struct{ Name string } `json:"scaleTargetRef"`
		MinReplicaCount int32                 `json:"minReplicaCount"`
		MaxReplicaCount int32                 `json:"maxReplicaCount"`
		Advanced        struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior struct {
					ScaleDown struct {
						StabilizationWindowSeconds int32 `json:"stabilizationWindowSeconds"`
					} `json:"scaleDown"`
				} `json:"behavior"`
			} `json:"horizontalPodAutoscalerConfig"`
		} `json:"advanced"`
		Triggers []struct {
			Type       string            `json:"type"`
			MetricType string            `json:"metricType"`
			Metadata   map[string]string `json:"metadata"`
		} `json:"triggers"`
	} `json:"spec"`
}

var kinds = map[string]func() any{
	"apps/v1/Deployment":                      func() any { return &apps.Deployment{} },
	"v1/ConfigMap":                            func() any { return &core.ConfigMap{} },
	"v1/Service":                              func() any { return &core.Service{} },
	"policy/v1/PodDisruptionBudget":           func() any { return &policy.PodDisruptionBudget{} },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return &networking.NetworkPolicy{} },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any { return &monitoring.ServiceMonitor{} },
	"monitoring.coreos.com/v1/PrometheusRule": func() any { return &monitoring.PrometheusRule{} },
	"keda.sh/v1alpha1/ScaledObject":           func() any { return &ScaledObject{} },
}

func read(document []byte) (any, error) {
	var head meta.TypeMeta
	if err := yaml.Unmarshal(document, &head); err != nil {
		return nil, err
	}
	make, known := kinds[head.APIVersion+"/"+head.Kind]
	if !known {
		return nil, fmt.Errorf("%s/%s is no kind that the chart has", head.APIVersion, head.Kind)
	}
	object := make()
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		return nil, err
	}
	if one, is := object.(runtime.Object); is {
		return object, admit(one)
	}
	return object, nil
}

type seen struct {
	pods    []map[string]string
	names   map[string]bool
	objects []any
}

func (s *seen) fits(selector *meta.LabelSelector) error {
	wanted, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		return err
	}
	for _, pod := range s.pods {
		if wanted.Matches(labels.Set(pod)) {
			return nil
		}
	}
	return fmt.Errorf("the selector %s finds no pod", wanted)
}

func (s *seen) check(object any) error {
	switch one := object.(type) {
	case *apps.Deployment:
		for _, volume := range one.Spec.Template.Spec.Volumes {
			if volume.ConfigMap != nil && !s.names["ConfigMap/"+volume.ConfigMap.Name] {
				return fmt.Errorf("ConfigMap %s is not rendered", volume.ConfigMap.Name)
			}
		}
		return s.fits(one.Spec.Selector)
	case *core.Service:
		return s.fits(&meta.LabelSelector{MatchLabels: one.Spec.Selector})
	case *policy.PodDisruptionBudget:
		return s.fits(one.Spec.Selector)
	case *networking.NetworkPolicy:
		return s.fits(&one.Spec.PodSelector)
	case *ScaledObject:
		if !s.names["Deployment/"+one.Spec.ScaleTargetRef.Name] {
			return fmt.Errorf("Deployment %s is not rendered", one.Spec.ScaleTargetRef.Name)
		}
	}
	return nil
}

func run() error {
	var input bytes.Buffer
	if _, err := input.ReadFrom(os.Stdin); err != nil {
		return err
	}
	all := seen{names: map[string]bool{}}
	for _, document := range strings.Split("\n"+input.String(), "\n---") {
		var fields map[string]any
		if err := yaml.Unmarshal([]byte(document), &fields); err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
		if len(fields) == 0 {
			continue
		}
		object, err := read([]byte(document))
		if err != nil {
			return fmt.Errorf("%w in\n%s", err, document)
		}
		if deployment, is := object.(*apps.Deployment); is {
			all.pods = append(all.pods, deployment.Spec.Template.Labels)
		}
		kind, name := fields["kind"].(string), fields["metadata"].(map[string]any)["name"].(string)
		if all.names[kind+"/"+name] {
			return fmt.Errorf("%s %s is rendered twice", kind, name)
		}
		all.names[kind+"/"+name] = true
		all.objects = append(all.objects, object)
	}
	for _, object := range all.objects {
		if err := all.check(object); err != nil {
			return err
		}
	}
	fmt.Printf("%d objects are of their types\n", len(all.objects))
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
