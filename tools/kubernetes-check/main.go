// Decodes manifests from standard input with Kubernetes' own types, strictly: a misspelt or misplaced field, a wrong
// type and a duplicate key are errors. Kinds that are not Kubernetes' own, such as the Prometheus operator's, are skipped by name.
//
//	npm run kubernetes:check
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	faults, err := check(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if faults > 0 {
		os.Exit(1)
	}
}

func check(in io.Reader, out io.Writer) (faults int, err error) {
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(in))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return faults, nil
		}
		if err != nil {
			return faults, err
		}
		_, kind, err := decoder.Decode(document, nil, nil)
		switch {
		case runtime.IsNotRegisteredError(err):
			fmt.Fprintf(out, "passed over  %v\n", err)
		case err != nil:
			faults++
			fmt.Fprintf(out, "WRONG        %v\n", err)
		default:
			fmt.Fprintf(out, "ok           %s %s\n", kind.GroupVersion(), kind.Kind)
		}
	}
}
