package geo

import "context"

type placeKey struct{}

// WithPlace returns a context for an exchange whose client's place is known already:
// another node has looked it up. p must not change any more.
func WithPlace(ctx context.Context, p *Place) context.Context {
	return context.WithValue(ctx, placeKey{}, p)
}

// PlaceOf returns what WithPlace gave; nil if nothing.
func PlaceOf(ctx context.Context) *Place {
	p, _ := ctx.Value(placeKey{}).(*Place)
	return p
}
