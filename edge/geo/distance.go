package geo

import "math"

// earth is the Earth's mean radius in kilometres (IUGG).
const earth = 6371.0088

// Kilometres is the distance of two positions in degrees, along the great circle of
// a round Earth.
func Kilometres(lat1, lon1, lat2, lon2 float64) float64 {
	const radian = math.Pi / 180
	a, b := math.Sin((lat2-lat1)*radian/2), math.Sin((lon2-lon1)*radian/2)
	h := a*a + math.Cos(lat1*radian)*math.Cos(lat2*radian)*b*b
	return 2 * earth * math.Asin(math.Sqrt(min(1, h)))
}
