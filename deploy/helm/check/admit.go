package main

import (
	"errors"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/apis/policy"
	_ "k8s.io/kubernetes/pkg/apis/policy/install"
	policyvalidation "k8s.io/kubernetes/pkg/apis/policy/validation"
)

var errNotJudged = errors.New("nothing here judges this kind: add it")

// admit gives an object its defaults and judges it, as the API server does before it keeps it. Of the kinds of others
// (Prometheus' operator, KEDA) the server knows nothing but what their definitions say: their types are all there is.
func admit(object runtime.Object) error {
	kind := object.GetObjectKind().GroupVersionKind()
	if !legacyscheme.Scheme.Recognizes(kind) {
		return nil
	}
	judged := object.DeepCopyObject()
	if named, is := judged.(meta.Object); is && named.GetNamespace() == "" {
		// Helm gives it the namespace of the release when it is installed.
		named.SetNamespace("release")
	}
	legacyscheme.Scheme.Default(judged)
	own, err := legacyscheme.Scheme.ConvertToVersion(judged, runtime.InternalGroupVersioner)
	if err != nil {
		return err
	}
	return faults(own).ToAggregate()
}

func faults(object runtime.Object) field.ErrorList {
	switch one := object.(type) {
	case *apps.Deployment:
		return appsvalidation.ValidateDeployment(one, corevalidation.PodValidationOptions{})
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(one)
	case *core.Service:
		placed := one.DeepCopy()
		place(placed)
		return corevalidation.ValidateServiceCreate(placed)
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(one, networkingvalidation.NetworkPolicyValidationOptions{})
	case *policy.PodDisruptionBudget:
		return policyvalidation.ValidatePodDisruptionBudget(one, policyvalidation.PodDisruptionBudgetValidationOptions{})
	default:
		return field.ErrorList{field.InternalError(field.NewPath("kind"), errNotJudged)}
	}
}

// place fills what the server allots to a service before it judges it.
func place(service *core.Service) {
	single := core.IPFamilyPolicySingleStack
	if len(service.Spec.ClusterIPs) == 0 && service.Spec.ClusterIP != "" {
		service.Spec.ClusterIPs = []string{service.Spec.ClusterIP}
		service.Spec.IPFamilies, service.Spec.IPFamilyPolicy = []core.IPFamily{core.IPv4Protocol}, &single
	}
}
