// Spreading and gathering on a padded mesh, as spread_chunk and gather_chunk of bsplines.py: one point after another,
// with its splines in registers.

#include <cstdint>

namespace {

// Splines of a point at its mesh points along each axis; those along z in the order of memory.
template <typename T, int P>
struct Splines {
    T x[P], y[P], z[P];

    // splines : (P, 3, n) array; its rows are `stride` numbers apart.
    Splines(const T* splines, int64_t stride, int64_t point) {
        for (int k = 0; k < P; ++k) {
            x[k] = splines[(3 * k + 0) * stride + point];
            y[k] = splines[(3 * k + 1) * stride + point];
            z[P - 1 - k] = splines[(3 * k + 2) * stride + point];
        }
    }
};

template <typename T, int P>
void spread(int64_t n, int64_t ny, int64_t nz, const int64_t* start, const T* splines, int64_t stride,
            const T* charges, T* mesh) {
    for (int64_t point = 0; point < n; ++point) {
        const Splines<T, P> w(splines, stride, point);
        T* corner = mesh + start[point];
        for (int a = 0; a < P; ++a) {
            const T plane = charges[point] * w.x[a];
            for (int b = 0; b < P; ++b) {
                const T line = plane * w.y[b];
                T* row = corner + ((P - 1 - a) * ny + P - 1 - b) * nz;
                for (int c = 0; c < P; ++c) row[c] += line * w.z[c];
            }
        }
    }
}

template <typename T, int P>
void gather(int64_t n, int64_t ny, int64_t nz, const int64_t* start, const T* splines, int64_t stride,
            const T* mesh, T* found, int64_t found_stride) {
    for (int64_t point = 0; point < n; ++point) {
        const Splines<T, P> w(splines, stride, point);
        const Splines<T, P> s(splines + 3 * P * stride, stride, point);
        const T* corner = mesh + start[point];
        T value = 0, by_x = 0, by_y = 0, by_z = 0;
        for (int a = 0; a < P; ++a) {
            T in_plane = 0, in_plane_by_y = 0, in_plane_by_z = 0;
            for (int b = 0; b < P; ++b) {
                const T* row = corner + ((P - 1 - a) * ny + P - 1 - b) * nz;
                T in_line = 0, in_line_by_z = 0;
                for (int c = 0; c < P; ++c) {
                    in_line += row[c] * w.z[c];
                    in_line_by_z += row[c] * s.z[c];
                }
                in_plane += in_line * w.y[b];
                in_plane_by_y += in_line * s.y[b];
                in_plane_by_z += in_line_by_z * w.y[b];
            }
            value += in_plane * w.x[a];
            by_x += in_plane * s.x[a];
            by_y += in_plane_by_y * w.x[a];
            by_z += in_plane_by_z * w.x[a];
        }
        found[point] = value;
        found[found_stride + point] = by_x;
        found[2 * found_stride + point] = by_y;
        found[3 * found_stride + point] = by_z;
    }
}

}  // namespace

#define FOR_TYPE(NAME, T, P)                                                                                          \
    extern "C" void spread_##NAME##_##P(int64_t n, int64_t ny, int64_t nz, const int64_t* start, const T* splines,   \
                                        int64_t stride, const T* charges, T* mesh) {                                  \
        spread<T, P>(n, ny, nz, start, splines, stride, charges, mesh);                                               \
    }                                                                                                                 \
    extern "C" void gather_##NAME##_##P(int64_t n, int64_t ny, int64_t nz, const int64_t* start, const T* splines,   \
                                        int64_t stride, const T* mesh, T* found, int64_t found_stride) {              \
        gather<T, P>(n, ny, nz, start, splines, stride, mesh, found, found_stride);                                   \
    }

// The orders of mesh_kernel.py.
FOR_TYPE(float64, double, 5)
FOR_TYPE(float32, float, 5)
FOR_TYPE(float64, double, 6)
FOR_TYPE(float32, float, 6)
