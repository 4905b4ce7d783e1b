"use client";

import { type FormEvent, useState } from "react";
import { authClient } from "@/lib/auth-client";

export function SignIn() {
  const [problem, setProblem] = useState("");

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    const { submitter } = event.nativeEvent as SubmitEvent;
    const form = new FormData(event.currentTarget);
    const email = String(form.get("email"));
    const password = String(form.get("password"));
    const { error } = await (submitter?.getAttribute("value") === "sign-up"
      ? authClient.signUp.email({ name: email, email, password })
      : authClient.signIn.email({ email, password })
    ).catch(() => ({ error: {} as { message?: string } }));
    if (error) setProblem(error.message ?? "Signing in can't be reached: check your connection and try again.");
  }

  return (
    <form onSubmit={submit}>
      <label>
        E-mail <input name="email" type="email" autoComplete="email" required />
      </label>
      <label>
        Password <input name="password" type="password" autoComplete="current-password" minLength={8} required />
      </label>
      <button type="submit">Sign in</button>
      <button type="submit" value="sign-up">
        Sign up
      </button>
      <p role="alert">{problem}</p>
    </form>
  );
}
