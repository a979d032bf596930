//go:build !unix

package metrics

func (x *exposition) processorTime() {}
