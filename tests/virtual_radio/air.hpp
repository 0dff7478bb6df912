// The air between virtual radios: a ring of samples in POSIX shared memory, addressed by time.
//
// Sample n of the air is the instant epoch + n / rate on the machine's monotonic clock. Whoever transmits
// adds samples at the n where they belong, whoever receives reads the n that have passed: that makes it
// real time, whichever process, and however many of them, hold the two ends.
//
// The ring is cut into blocks, each stamped with the lap it was last written in. A block with an old
// stamp holds what was sent a lap ago and counts as silence, so nobody has to clear it.
#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

namespace virtual_radio {

using Sample = std::complex<float>;

inline int64_t monotonic_ns()
{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

class Air
{
public:
    static constexpr int64_t block_samples = 4096;
    static constexpr int64_t blocks = 4096;
    // 4 s at 4 Msps, 128 MiB at most: memory is taken where somebody sends, silence costs none.
    static constexpr int64_t ring_samples = blocks * block_samples;

    // Opens the air of that name, or makes it. Everybody who has it open holds a shared lock on its file,
    // which the kernel takes back from those that are killed.
    explicit Air(const std::string& name) : _path("/dev/shm/uoisc-air-" + name)
    {
        struct stat status;
        while (true) {
            _file = open(_path.c_str(), O_RDWR | O_CLOEXEC);
            if (_file < 0) {
                if (errno != ENOENT) fail("open");
                create();
                continue;
            }
            if (flock(_file, LOCK_SH) != 0) fail("flock");
            if (fstat(_file, &status) != 0) fail("fstat");
            // Its last user may have removed it in between.
            if (status.st_nlink > 0) break;
            close(_file);
        }
        if (status.st_size != sizeof(Memory)) fail("made by another version");
        _memory = map(_file);
    }

    ~Air()
    {
        munmap(_memory, sizeof(Memory));
        // The exclusive lock is free: this was the last one.
        if (flock(_file, LOCK_EX | LOCK_NB) == 0) unlink(_path.c_str());
        close(_file);
    }

    Air(const Air&) = delete;
    Air& operator=(const Air&) = delete;

    // All radios of an air run at one sample rate, the first one's to stream.
    void start_stream(const double rate_hz)
    {
        Lock lock(*this);
        if (_memory->streams > 0 && _memory->rate_hz != rate_hz) {
            throw std::runtime_error("the air runs at " + std::to_string(_memory->rate_hz) +
                                     " samples per second already");
        }
        if (_memory->rate_hz != rate_hz) {
            // Positions mean other instants now: nothing that is in the ring holds.
            for (auto& stamp : _memory->stamps) stamp = never;
            _memory->heard = 0;
        }
        _memory->rate_hz = rate_hz;
        _memory->streams++;
    }

    void stop_stream()
    {
        Lock lock(*this);
        if (_memory->streams > 0) _memory->streams--;
    }

    // The carrier that the ring's samples are relative to: that of the first radio that asks.
    double centre_hz(const double suggestion_hz)
    {
        Lock lock(*this);
        if (_memory->centre_hz == 0) _memory->centre_hz = suggestion_hz;
        return _memory->centre_hz;
    }

    // Where receivers are to overflow next; a sender that knows where its bursts are says so.
    void set_overflow(const int64_t index)
    {
        Lock lock(*this);
        _memory->overflow_at = index;
    }
    bool take_overflow(const int64_t index)
    {
        Lock lock(*this);
        if (index < _memory->overflow_at) return false;
        _memory->overflow_at = INT64_MAX;
        return true;
    }

    int64_t time_ns() const { return monotonic_ns() - _memory->epoch_ns; }
    int64_t to_index(const int64_t ns) const { return int64_t(double(ns) * 1e-9 * _memory->rate_hz + 0.5); }
    int64_t to_ns(const int64_t index) const { return int64_t(double(index) / _memory->rate_hz * 1e9 + 0.5); }
    int64_t now() const { return to_index(time_ns()); }

    // Adds samples to what others send at the same time. False, and nothing done, where somebody has heard
    // that instant already: the sender is late, whatever its own look at the clock said.
    bool add(int64_t index, const Sample* samples, int64_t count)
    {
        Lock lock(*this);
        if (index < _memory->heard) return false;
        while (count > 0) {
            const int64_t block = (index / block_samples) % blocks;
            const int64_t offset = index % block_samples;
            const int64_t piece = std::min(count, block_samples - offset);
            Sample* target = _memory->samples[block];
            if (_memory->stamps[block] != index / ring_samples) {
                std::memset(static_cast<void*>(target), 0, sizeof(Sample) * block_samples);
                _memory->stamps[block] = index / ring_samples;
            }
            for (int64_t i = 0; i < piece; i++) target[offset + i] += samples[i];
            index += piece;
            samples += piece;
            count -= piece;
        }
        return true;
    }

    // Copies samples out; silence where nobody sent anything. Indices before the epoch are silent too.
    void read(int64_t index, Sample* samples, int64_t count)
    {
        Lock lock(*this);
        _memory->heard = std::max(_memory->heard, index + count);
        for (; count > 0 && index < 0; index++, count--) *samples++ = 0;
        while (count > 0) {
            const int64_t block = (index / block_samples) % blocks;
            const int64_t offset = index % block_samples;
            const int64_t piece = std::min(count, block_samples - offset);
            if (_memory->stamps[block] == index / ring_samples) {
                std::memcpy(static_cast<void*>(samples), _memory->samples[block] + offset, sizeof(Sample) * piece);
            } else {
                std::memset(static_cast<void*>(samples), 0, sizeof(Sample) * piece);
            }
            index += piece;
            samples += piece;
            count -= piece;
        }
    }

private:
    static constexpr int64_t never = -1;

    struct Memory {
        pthread_mutex_t mutex;
        int32_t streams;
        double rate_hz;
        double centre_hz;
        int64_t epoch_ns;
        int64_t heard;
        int64_t overflow_at;
        int64_t stamps[blocks];
        Sample samples[blocks][block_samples];
    };

    class Lock
    {
    public:
        explicit Lock(Air& air) : _mutex(&air._memory->mutex)
        {
            // A process that was killed while it held the lock leaves samples that nobody needs whole.
            if (pthread_mutex_lock(_mutex) == EOWNERDEAD) pthread_mutex_consistent(_mutex);
        }
        ~Lock() { pthread_mutex_unlock(_mutex); }
        Lock(const Lock&) = delete;
        Lock& operator=(const Lock&) = delete;

    private:
        pthread_mutex_t* _mutex;
    };

    // Makes the file under a name of its own and gives it its real one when it is complete, so that nobody
    // finds half of it. Where somebody else was faster, theirs counts.
    void create() const
    {
        const std::string partial = _path + "." + std::to_string(getpid()) + "." + std::to_string(monotonic_ns());
        const int file = open(partial.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file < 0 || ftruncate(file, sizeof(Memory)) != 0) fail("create");
        Memory* memory = map(file);
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_init(&memory->mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
        for (auto& stamp : memory->stamps) stamp = never;
        memory->rate_hz = 1e6;
        memory->overflow_at = INT64_MAX;
        memory->epoch_ns = monotonic_ns();
        munmap(memory, sizeof(Memory));
        close(file);
        if (link(partial.c_str(), _path.c_str()) != 0 && errno != EEXIST) fail("link");
        unlink(partial.c_str());
    }

    Memory* map(const int file) const
    {
        void* place = mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        if (place == MAP_FAILED) fail("mmap");
        return static_cast<Memory*>(place);
    }

    [[noreturn]] void fail(const char* what) const
    {
        throw std::runtime_error("air " + _path + ": " + what + ": " + std::strerror(errno));
    }

    std::string _path;
    int _file = -1;
    Memory* _memory = nullptr;
};

} // namespace virtual_radio
